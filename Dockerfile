# One image for all of our own services: Python 3.11, Java 17, the pinned environment, Spark's jars, and this package.
# Each service of docker-compose.yml gives its own command.

FROM python:3.11.14-slim-bookworm AS java

# A folder of manual pages that the slim image lacks is what the package's set-up stumbles over.
# hadolint ignore=DL3008
RUN mkdir -p /usr/share/man/man1 \
 && apt-get update \
 && apt-get install --yes --no-install-recommends openjdk-17-jre-headless \
 && rm -rf /var/lib/apt/lists/*


FROM java AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 UV_LINK_MODE=copy
WORKDIR /lakehouse
RUN python -m venv .venv && .venv/bin/pip install --no-cache-dir uv==0.13.9
ENV VIRTUAL_ENV=/lakehouse/.venv

# What changes seldom comes first: a change of the code below fetches no package and no jar again.
COPY requirements-pipeline.txt ./
RUN .venv/bin/uv pip install --no-cache -r requirements-pipeline.txt
COPY config/spark-jars.ivy.xml config/
COPY java/ java/
COPY pipelines/__init__.py pipelines/config.py pipelines/errors.py pipelines/jars.py pipelines/timeframes.py pipelines/
RUN .venv/bin/python -m pipelines.jars --conf delta s3 kafka

COPY pyproject.toml README.md LICENSE ./
COPY pipelines/ pipelines/
COPY config/ config/
COPY dbt/ dbt/
COPY airflow/ airflow/
COPY deploy/services/ deploy/services/
RUN .venv/bin/uv pip install --no-cache --no-deps -e . && .venv/bin/python -m compileall -q pipelines


FROM java

RUN groupadd --gid 10001 lakehouse \
 && useradd --uid 10001 --gid lakehouse --create-home lakehouse \
 && install --directory --owner lakehouse --group lakehouse /lakehouse/data /var/lib/airflow /var/lib/spark
COPY --from=build /lakehouse /lakehouse
ENV PATH=/lakehouse/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SPARK_HOME=/lakehouse/.venv/lib/python3.11/site-packages/pyspark \
    AIRFLOW_HOME=/var/lib/airflow
WORKDIR /lakehouse
USER 10001:10001
CMD ["lakehouse", "--help"]
