// Makes a TypeScript constant of each dashboard, so that the compiler holds it to Grafana's types, and runs the compiler.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const folder = resolve(process.argv[2] ?? join(here, '..', '..', 'monitoring', 'grafana'));
const build = join(here, 'build');
rmSync(build, { recursive: true, force: true });
mkdirSync(build);
const boards = readdirSync(folder).filter((name) => name.endsWith('.json'));
if (boards.length === 0) {
  console.error(`no dashboards in ${folder}`);
  process.exit(1);
}
for (const name of boards) {
  const json = readFileSync(join(folder, name), 'utf8').trim();
  const source = `import type { Board } from '../shapes';\nexport default ${json} satisfies Board;\n`;
  writeFileSync(join(build, name.replace(/\.json$/, '.ts')), source);
}
const compiler = join(here, 'node_modules', 'typescript', 'bin', 'tsc');
const { status } = spawnSync(process.execPath, [compiler, '--project', here, '--pretty', 'false'], { stdio: 'inherit' });
if (status === 0) {
  const { version } = JSON.parse(readFileSync(join(here, 'node_modules', '@grafana', 'schema', 'package.json'), 'utf8'));
  console.log(`${boards.join(', ')}: right by the types of @grafana/schema ${version}`);
}
process.exit(status ?? 1);
