// The page: one section for each run, its style and script inline. A pure function of the records: the same files give the same bytes.
import { readFileSync } from "node:fs";
import { chartsOf } from "./curves.ts";
import { factsMarkup, factsOf, figuresMarkup, headline } from "./facts.ts";
import { html, join, jsonScript, Markup } from "./html.ts";
import { type ChartData, lineChart } from "./line-chart.ts";
import { commandsSection, configurationSection, eventsSection, warningsSection } from "./record-sections.ts";
import { type RolloutData, rolloutData, rolloutSection } from "./rollouts.ts";
import type { Artifact, RunRecord } from "./run-record.ts";
import { evenly } from "./series.ts";
import { acceptanceBars, costCurve, costSentence } from "./speculation.ts";
import { textsSection } from "./texts.ts";
import { tokenTree } from "./token-tree.ts";

export interface RenderOptions {
  /** Heading of the page. Default: the name of the run's folder. */
  readonly title?: string;
  /** Command lines that repeat a run, where it did not record them itself. Default: none. */
  readonly commands?: (run: RunRecord) => readonly string[];
}

/** Characters of completions in the whole page, which keeps it below 2 MB in all ordinary cases. */
const rolloutCharacters = 900_000;
const maxTrees = 6;
const maxMoreCharts = 60;

/** The whole page as text. */
export function renderReport(
  runs: readonly RunRecord[],
  { title = runs[0]?.id ?? "report", commands = () => [] }: RenderOptions = {},
): string {
  const page = new Page(rolloutCharacters / Math.max(1, runs.length));
  const isSingle = runs.length === 1;
  const sections = runs.map((run, i) => runSection(run, `run${i + 1}`, isSingle, commands(run), page));
  const navigation = isSingle
    ? undefined
    : html`<nav aria-label="Runs">${runs.map(({ id }, i) => html`<a href="#run${i + 1}">${heading(id)}</a>`)}</nav>`;
  const document = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="longwave">
<link rel="icon" href="data:,">
<title>${title} · longwave</title>
<style>${asset("report.css")}</style>
</head>
<body>
<header class="page"><p class="brand">longwave report${heading(title) === title ? "" : ` · ${title}`}</p><h1>${heading(title)}</h1>${navigation}</header>
<main>
${sections}
</main>
${jsonScript("chart-data", page.charts)}
${jsonScript("rollout-data", page.rollouts)}
<script>${asset("report.js")}</script>
</body>
</html>
`;
  return document.text;
}

/** Ids and data that the sections of one page share. */
class Page {
  readonly charts: Record<string, ChartData> = {};
  readonly rollouts: Record<string, RolloutData> = {};
  readonly charactersPerRun: number;
  #numCharts = 0;

  constructor(charactersPerRun: number) {
    this.charactersPerRun = charactersPerRun;
  }

  chart(spec: Parameters<typeof lineChart>[1]): Markup {
    const id = `chart${++this.#numCharts}`;
    const { figure, data } = lineChart(id, spec);
    this.charts[id] = data;
    return figure;
  }
}

/** Style and script are files of their own in the package, so that they can be read and edited as what they are. */
const asset = (name: string): Markup => new Markup(readFileSync(new URL(`../../assets/report/${name}`, import.meta.url), "utf8").trim());

/** `20260131-120000-quickstart` is known as `quickstart`. */
const heading = (id: string): string => id.replace(/^\d{8}-\d{6}-/, "");

function runSection(run: RunRecord, id: string, isSingle: boolean, commands: readonly string[], page: Page): Markup {
  const { main, more } = chartsOf(run);
  const rollouts = rolloutData(run, { characters: page.charactersPerRun });
  if (rollouts) page.rollouts[id] = rollouts.data;
  return html`<article id="${id}" class="run">
<header><h2${isSingle ? html` class="hidden"` : ""}>${heading(run.id)}</h2>${factsMarkup(factsOf(run))}${figuresMarkup(headline(run))}</header>
${warningsSection(run)}
${artifactSections(run.artifacts, page)}
${main.length > 0 ? html`<section><h3>Curves</h3>${chartGrid(main.map((spec) => page.chart(spec)))}</section>` : ""}
${moreCharts(more, main.length === 0, page)}
${textsSection(run)}
${rollouts ? rolloutSection(id, rollouts.data, rollouts.numSteps) : ""}
${commandsSection(run, commands)}
<section class="record">${configurationSection(run)}
${eventsSection(run)}</section>
</article>
`;
}

/** Three columns on a wide screen, or four where that leaves fewer places empty. */
function chartGrid(charts: readonly Markup[]): Markup {
  const empty = (columns: number): number => (columns - (charts.length % columns)) % columns;
  return html`<div class="charts${charts.length > 3 && empty(4) <= empty(3) ? " four" : ""}">${charts}</div>`;
}

function moreCharts(specs: Parameters<typeof lineChart>[1][], isOpen: boolean, page: Page): Markup | undefined {
  if (specs.length === 0) return undefined;
  const shown = specs.slice(0, maxMoreCharts);
  const note = shown.length < specs.length ? html`<p class="note">The first ${maxMoreCharts} of ${specs.length} by name.</p>` : undefined;
  return html`<details${isOpen ? html` open` : ""}><summary>More metrics (${specs.length})</summary>${note}${chartGrid(shown.map((spec) => page.chart(spec)))}</details>`;
}

/** Speculation and token trees; the last record of speculation counts, trees are shown by step. */
function artifactSections(artifacts: readonly Artifact[], page: Page): Markup {
  const speculation = artifacts.findLast(({ name }) => name === "speculation");
  const trees = artifacts.filter(({ name }) => name === "token-tree");
  const parts: Markup[] = [];
  if (speculation) {
    const cost = costCurve(speculation);
    const charts = [acceptanceBars(speculation), cost && page.chart(cost)].filter((chart) => chart !== undefined);
    const sentence = costSentence(speculation);
    parts.push(
      html`<section><h3>Speculation</h3>${charts.length > 0 ? chartGrid([...charts, ...(sentence ? [html`<p class="sentence">${sentence}</p>`] : [])]) : html`<p class="missing">Neither acceptance by position nor a cost curve was recorded.</p>`}</section>`,
    );
  }
  if (trees.length > 0) {
    const shown = evenly(trees.length, maxTrees).map((i) => tokenTree(trees[i]));
    const [first, ...others] = shown;
    const rest = others.length > 0 ? html`<details><summary>More token trees (${others.length})</summary>${others}</details>` : undefined;
    parts.push(html`<section><h3>Token tree</h3>${first}${rest}</section>`);
  }
  return join(parts);
}
