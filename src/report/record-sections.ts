// What a run was told and what it told: configuration, commands, warnings, events.
import { formatDuration } from "./format.ts";
import { html, type Markup } from "./html.ts";
import { asList, asText, flatten } from "./json.ts";
import type { LogEntry, RunRecord } from "./run-record.ts";

export function configurationSection({ config }: RunRecord): Markup {
  if (!config) return html`<details><summary>Configuration</summary><p class="missing">The run recorded no configuration.</p></details>`;
  const rows = flatten(config);
  return html`<details><summary>Configuration (${rows.length} settings)</summary><dl class="settings">${rows.map(([name, value]) => html`<div><dt>${name}</dt><dd>${typeof value === "string" ? value : JSON.stringify(value)}</dd></div>`)}</dl></details>`;
}

/** Recorded ones (artifact `commands`, or `command` of the configuration) come before those that the caller derived. */
export function commandsSection(run: RunRecord, derived: readonly string[]): Markup | undefined {
  const artifact = run.artifacts.findLast(({ name }) => name === "commands");
  const recorded = asList(artifact?.data.commands).flatMap((command) => asText(command) ?? []);
  const configured = asText(run.config?.command);
  const commands = recorded.length > 0 ? recorded : configured === undefined ? derived : [configured];
  if (commands.length === 0) return undefined;
  return html`<section><h3>Commands to reproduce</h3><pre tabindex="0"><code>${commands.map((command, i) => html`${i > 0 ? "\n" : ""}${unbroken(command)}`)}</code></pre></section>`;
}

/** A flag is not broken at its dashes; copied, the text is the command. */
const unbroken = (command: string): Markup[] =>
  command.split(/(\s+)/).map((word) => (word.startsWith("-") ? html`<span class="flag">${word}</span>` : html`${word}`));

export function warningsSection({ log, notes }: RunRecord): Markup | undefined {
  const warnings = log.filter(({ kind }) => kind === "warning");
  if (warnings.length + notes.length === 0) return undefined;
  const items = [
    ...notes.map((note) => html`<li>${note}</li>`),
    ...warnings
      .slice(0, 30)
      .map(
        ({ step, message, hint }) =>
          html`<li>${step > 0 ? `Step ${step.toLocaleString("en-US")}: ` : ""}${message}${hint && html` <span class="note">${hint}</span>`}</li>`,
      ),
    warnings.length > 30 ? html`<li>${warnings.length - 30} more are in the list of events.</li>` : undefined,
  ];
  return html`<section class="warnings"><h3>Warnings</h3><ul>${items}</ul></section>`;
}

const names: Readonly<Record<LogEntry["kind"], string>> = {
  stage: "preparation",
  start: "start",
  resume: "resume",
  evaluation: "evaluation",
  checkpoint: "checkpoint",
  warning: "warning",
  end: "end",
};

export function eventsSection({ log, started }: RunRecord): Markup {
  if (log.length === 0) return html`<details><summary>Events</summary><p class="missing">No events were recorded.</p></details>`;
  const since = (time: number | undefined): string =>
    time === undefined || started === undefined ? "" : formatDuration(Math.max(0, time - started) / 1000);
  const rows = log.map(
    ({ kind, step, time, message, hint }) =>
      html`<tr class="${kind}"><td class="number">${since(time)}</td><td class="number">${step.toLocaleString("en-US")}</td><td>${names[kind]}</td><td>${message}${hint && html` <span class="note">${hint}</span>`}</td></tr>`,
  );
  return html`<details><summary>Events (${log.length})</summary><table class="events"><thead><tr><th class="number" scope="col">time</th><th class="number" scope="col">step</th><th scope="col">kind</th><th scope="col">what</th></tr></thead><tbody>${rows}</tbody></table></details>`;
}
