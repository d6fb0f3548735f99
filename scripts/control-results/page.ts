// docs/results-control.md from the files of docs/results/control: what others publish beside what was reached here. What is missing says so.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { isDone, isPeerDone, jobsOf, peerPath, type Row, resultPath, rowId } from "./jobs.ts";
import type { JobResult } from "./run-job.ts";
import type { PeerResult } from "./run-peer.ts";

const page = fileURLToPath(new URL("../../docs/results-control.md", import.meta.url));

export function writePage(rows: readonly Row[]): void {
  const results = new Map(rows.map((row) => [row, resultsOf(row)]));
  const of = (group: Row["group"]): Row[] => rows.filter((row) => row.group === group);
  const lines = [
    "# Results: control",
    "",
    "This page is made by `node scripts/control-results.mjs --page` from the files in `docs/results/control/`; `jobs.json` there lists the runs.",
    "The same script without `--page` trains what is missing (`--dry-run` names it), and a run that was interrupted starts again.",
    "",
    "A result is the final policy of each seed, without choosing the best of a run, over 100 episodes with the most probable actions. *Mean* is over",
    "the seeds' means, ± is the standard deviation over all their episodes together (as in the zoo's table), and *seeds* are the means one by one.",
    "Settings are those of `src/rl/control/zoo.ts` (rl-baselines3-zoo's), or the options in `jobs.json`. The time is one run's processor time, all",
    "threads; most runs shared a machine with other work, so it is an upper bound. MuJoCo's published numbers are for the -v3 tasks.",
    "",
    "## Beside published numbers",
    "",
    "A published number of one run says little about seeds. `node scripts/control-results.mjs --peer <python> --only <row>` trains Stable-Baselines3's own seeds",
    "with the same settings and fills its column, on the same version of the task; an empty field was not run. TRPO has five seeds on HalfCheetah, because its",
    "seeds fall into two groups (the published three did not): runs that stay below 2,000, and runs that go on. Where a published number is missed here,",
    "Stable-Baselines3's own seeds mostly miss it as well: its PPO on Hopper-v5 ends standing still with the zoo's settings, as ours does, its TRPO keeps one seed",
    "of three below 500 on CartPole and one of three at 264 on Swimmer-v5, and its PPO leaves one of three at 0 on MountainCarContinuous.",
    "",
    "| task | algorithm | steps | published | mean ± episodes | seeds | Stable-Baselines3 here: mean, seeds | CPU s | command |",
    "|---|---|---|---|---|---|---|---|---|",
    ...of("published").map((row) => publishedLine(row, results.get(row) as JobResult[])),
    "",
    "## Return while learning",
    "",
    "Mean of the last 100 episodes of training, at a quarter, a half, three quarters and the end of the run; mean over seeds.",
    "",
    "| task | algorithm | 25 % | 50 % | 75 % | 100 % |",
    "|---|---|---|---|---|---|",
    ...rows
      .filter((row) => row.group !== "ablation" && (results.get(row) as JobResult[]).length > 0)
      .map((row) => curveLine(row, results.get(row) as JobResult[])),
    "",
    "## PPO's ablation",
    "",
    ...ablation(of("ablation"), results),
    "",
    "## Other tasks",
    "",
    "Short runs, most of them not tuned: that an algorithm learns there at all.",
    "",
    "| task | algorithm | steps | mean ± episodes | seeds | CPU s | command |",
    "|---|---|---|---|---|---|---|",
    ...of("short").map((row) => shortLine(row, results.get(row) as JobResult[])),
    "",
    ...provenance([...results.values()].flat()),
    "",
  ];
  writeFileSync(page, lines.join("\n"));
}

const resultsOf = (row: Row): JobResult[] =>
  jobsOf(row)
    .filter(isDone)
    .map((job) => JSON.parse(readFileSync(resultPath(job), "utf8")) as JobResult);

const peersOf = (row: Row): PeerResult[] =>
  jobsOf(row)
    .filter(isPeerDone)
    .map((job) => JSON.parse(readFileSync(peerPath(job), "utf8")) as PeerResult);

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
const digits = (value: number): string => value.toFixed(Math.abs(value) >= 1000 ? 0 : Math.abs(value) >= 2 ? 1 : 2);
const thousands = (value: number): string => value.toLocaleString("en-US");

/** `-83.1 ± 18.6` of all episodes of all seeds. */
function pooled(results: readonly JobResult[]): string {
  const overall = mean(results.map(({ evaluation }) => evaluation.mean));
  const second = mean(results.map(({ evaluation }) => evaluation.std ** 2 + evaluation.mean ** 2));
  return `${digits(overall)} ± ${digits(Math.sqrt(Math.max(0, second - overall ** 2)))}`;
}

function outcome(row: Row, results: readonly JobResult[]): [outcome: string, seeds: string, cpu: string] {
  if (results.length === 0) return ["not run yet", "", ""];
  const seeds = results.map(({ evaluation }) => digits(evaluation.mean)).join(", ");
  const missing = row.seeds.length - results.length;
  return [
    pooled(results),
    missing > 0 ? `${seeds}; ${missing} not run yet` : seeds,
    mean(results.map(({ cpuSeconds }) => cpuSeconds)).toFixed(0),
  ];
}

const command = (row: Row): string => `\`node scripts/control-results.mjs --only '${rowId(row)}-s*'\``;

function publishedLine(row: Row, results: readonly JobResult[]): string {
  const { published, env, algo, steps } = row;
  const [reached, seeds, cpu] = outcome(row, results);
  const means = peersOf(row).map(({ evaluation }) => evaluation.mean);
  const peers = means.length > 1 ? `${digits(mean(means))}: ${means.map(digits).join(", ")}` : means.map(digits).join("");
  const told = published ? `${published.mean}${published.std === undefined ? "" : ` ± ${published.std}`} (${published.source})` : "";
  return `| ${[env, algo.toUpperCase(), thousands(steps), told, reached, seeds, peers, cpu, command(row)].join(" | ")} |`;
}

function shortLine(row: Row, results: readonly JobResult[]): string {
  const name = row.algo.toUpperCase() + (row.variant ? `, ${row.variant.replaceAll("-", " ")}` : "");
  return `| ${[row.env, name, thousands(row.steps), ...outcome(row, results), command(row)].join(" | ")} |`;
}

function curveLine({ env, algo, steps, variant }: Row, results: readonly JobResult[]): string {
  const at = (share: number): string => {
    const values = results.map(
      ({ curve }) => curve.findLast(([step], i) => i === 0 || step <= share * Math.max(steps, curve.at(-1)?.[0] ?? 0))?.[1],
    );
    return values.every((value) => value !== undefined) ? digits(mean(values)) : "";
  };
  const name = algo.toUpperCase() + (variant ? `, ${variant.replaceAll("-", " ")}` : "");
  return `| ${[env, name, ...[0.25, 0.5, 0.75, 1].map(at)].join(" | ")} |`;
}

/** Table 1 of Schulman et al. 2017: seven tasks, three seeds, a million steps; 0 is a random policy and 1 the best result of a task. */
const paper: Readonly<Record<string, number>> = {
  "no-clip": -0.39,
  "clip-0.1": 0.76,
  "clip-0.2": 0.82,
  "clip-0.3": 0.7,
  "adaptive-kl-0.003": 0.68,
  "adaptive-kl-0.01": 0.74,
  "adaptive-kl-0.03": 0.71,
  "fixed-kl-0.3": 0.62,
  "fixed-kl-1": 0.71,
  "fixed-kl-3": 0.72,
  "fixed-kl-10": 0.69,
};

function ablation(rows: readonly Row[], results: ReadonlyMap<Row, JobResult[]>): string[] {
  const tasks = [...new Set(rows.map(({ env }) => env))];
  const returns = (row: Row | undefined): number[] =>
    row ? (results.get(row) ?? []).flatMap(({ trainingReturn }) => (trainingReturn === null ? [] : [trainingReturn])) : [];
  // Where a task begins, and the best mean of a variant there.
  const scales = tasks.map((task) => {
    const own = rows.filter(({ env }) => env === task);
    const starts = own.flatMap((row) => (results.get(row) ?? []).flatMap(({ curve }) => (curve[0] ? [curve[0][1]] : [])));
    return {
      zero: mean(starts),
      one: Math.max(...own.map((row) => returns(row)).flatMap((values) => (values.length > 0 ? [mean(values)] : []))),
    };
  });
  const find = (variant: string, task: string): Row | undefined => rows.find((row) => row.variant === variant && row.env === task);
  const done = rows.reduce((sum, row) => sum + (results.get(row) as JobResult[]).length, 0);
  return [
    `Section 6.1 and Table 1 of the paper in shape: ${tasks.join(" and ")}, 200,000 steps, three seeds, Stable-Baselines3's default settings with normalised`,
    "observations and rewards. The *score* is the mean return of the last 100 episodes, shifted and scaled for each task: 0 is its start (the first",
    `update of every run), 1 the best variant. \`node scripts/control-results.mjs --only 'ppo-*clip*,ppo-*kl*'\`: ${done} of ${rows.reduce((sum, { seeds }) => sum + seeds.length, 0)} runs are there.`,
    "",
    `| variant | paper, 7 tasks | score here | ${tasks.map((task) => `${task}, mean return (seeds)`).join(" | ")} |`,
    `|---|---|---|${tasks.map(() => "---|").join("")}`,
    ...Object.entries(paper).flatMap(([variant, published]) => {
      // The paper has more coefficients of either penalty.
      if (!rows.some((row) => row.variant === variant)) return [];
      const values = tasks.map((task) => returns(find(variant, task)));
      const scores = values.flatMap((list, i) =>
        list.length > 0 ? [(mean(list) - scales[i].zero) / (scales[i].one - scales[i].zero)] : [],
      );
      const told = scores.length === tasks.length ? mean(scores).toFixed(2) : "not run yet";
      const cells = values.map((list) => (list.length > 0 ? `${digits(mean(list))} (${list.map(digits).join(", ")})` : "not run yet"));
      return [`| ${[variant.replaceAll("-", " "), published.toFixed(2), told, ...cells].join(" | ")} |`];
    }),
  ];
}

function provenance(results: readonly JobResult[]): string[] {
  const distinct = (of: (versions: JobResult["versions"]) => string): string =>
    [...new Set(results.map(({ versions }) => of(versions)))].join(", ");
  if (results.length === 0) return [];
  return [
    `longwave ${distinct(({ longwave }) => longwave)}, ONNX Runtime ${distinct(({ onnxRuntime }) => onnxRuntime)}, Node ${distinct(({ node }) => node)}, ${distinct(({ cpu, cores }) => `${cpu} with ${cores} cores`)}. Each file holds its commit, its learning curve and its command.`,
  ];
}
