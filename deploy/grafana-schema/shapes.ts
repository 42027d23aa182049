// What a dashboard's JSON may be: Grafana's types, each panel with the options of its own kind and no others.
import type { AnnotationQuery, AnnotationTarget, Dashboard, DataQuery, FieldConfig, Panel, RowPanel } from '@grafana/schema';
import type * as bargauge from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen.js';
import type * as piechart from '@grafana/schema/dist/esm/raw/composable/piechart/panelcfg/x/PieChartPanelCfg_types.gen.js';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen.js';
import type * as states from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen.js';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen.js';
import type * as timeseries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen.js';

// JSON has no enums: they become the values that they stand for.
type Json<T> = T extends string
  ? `${T}`
  : T extends number
    ? `${T}` extends `${infer N extends number}` ? N : T
    : T extends readonly (infer U)[]
      ? Json<U>[]
      : T extends object
        ? { [K in keyof T]: Json<T[K]> }
        : T;

// The schema leaves out what a data source adds to a query; these are Prometheus'.
interface PrometheusQuery extends DataQuery {
  expr: string;
  legendFormat: string;
  editorMode: 'code';
  instant: boolean;
  range: boolean;
  format?: 'time_series' | 'table' | 'heatmap';
}

// Options and custom settings may be left out in JSON: Grafana fills them in, with the plugin's defaults.
type Drawn<Kind extends string, Options, Custom> = Omit<Json<Panel>, 'type' | 'options' | 'fieldConfig' | 'targets'> & {
  type: Kind;
  title: string;
  description: string;
  targets: Json<PrometheusQuery>[];
  options?: Json<Partial<Options>>;
  fieldConfig: {
    defaults: Omit<Json<FieldConfig>, 'custom'> & { custom?: Json<Partial<Custom>> };
    overrides: { matcher: { id: string; options: string }; properties: { id: string; value: unknown }[] }[];
  };
};

type AnyPanel =
  | Drawn<'timeseries', timeseries.Options, timeseries.FieldConfig>
  | Drawn<'stat', stat.Options, Record<string, never>>
  | Drawn<'table', table.Options, table.FieldConfig>
  | Drawn<'piechart', piechart.Options, piechart.FieldConfig>
  | Drawn<'bargauge', bargauge.Options, Record<string, never>>
  | Drawn<'state-timeline', states.Options, states.FieldConfig>;

// Marks are asked of Grafana itself, by their tags: of two types that the schema has for that, the one with tags.
type Marks = Omit<Json<AnnotationQuery>, 'target'> & { target: Json<AnnotationTarget> };

export type Board = Omit<Json<Dashboard>, 'annotations' | 'panels'> & {
  annotations: { list: Marks[] };
  panels: (AnyPanel | (Omit<Json<RowPanel>, 'panels'> & { panels: [] }))[];
};
