// `longwave rl` and its sub-commands, from training to a page and an ONNX file, with a module's environment too.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { createContext, Script } from "node:vm";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readMetrics } from "../../engine/index.ts";
import { bufferedOutput } from "../io.ts";
import { runCli } from "../run-cli.ts";

const folder = mkdtempSync(join(tmpdir(), "longwave-rl-command-"));
const runs = join(folder, "runs");
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const run = async (...argv: string[]) => {
  const stdout = bufferedOutput();
  const stderr = bufferedOutput();
  const io = { stdout, stderr, stdin: Readable.from([]), env: {}, signal: new AbortController().signal };
  return { code: await runCli(argv, io), out: stdout.text(), err: stderr.text() };
};

const short = ["--num-envs", "2", "--num-steps", "32", "--batch-size", "32", "--num-epochs", "2", "--hidden", "8", "--runs", runs];
let path = "";

beforeAll(async () => {
  const { code, err } = await run(
    "rl",
    "--env",
    "CartPole-v1",
    "--steps",
    "1.28e2",
    "--evaluate-every",
    "64",
    "--evaluation-episodes",
    "2",
    ...short,
  );
  expect(err).toBe("");
  expect(code).toBe(0);
  path = join(runs, readdirSync(runs)[0]);
});

describe("rl", () => {
  it("takes numbers such as 1e6, fills in tuned settings, and records everything", () => {
    const config = JSON.parse(readFileSync(join(path, "config.json"), "utf8"));
    // gamma is the zoo's for CartPole, the number of epochs was given.
    expect(config).toMatchObject({
      algo: "ppo",
      env: "CartPole-v1",
      steps: 128,
      gamma: 0.98,
      numEpochs: 2,
      learningRateSchedule: "linear",
    });
    const events = [...readMetrics(join(path, "metrics.jsonl"))];
    // Two updates of 64 environment steps each.
    expect(events.filter(({ kind }) => kind === "step").map(({ step }) => step)).toEqual([64, 128]);
    expect(readdirSync(join(path, "checkpoints"))).toContain("step-00000128");
    expect(events.at(-1)).toMatchObject({ kind: "run-end", reason: "finished", totalTokens: 128 });
    expect(readdirSync(path).some((name) => name.startsWith("events.out.tfevents"))).toBe(true);
  });

  it("takes the tuned settings of the algorithm and environment that a configuration file names", async () => {
    const file = join(folder, "trpo.yaml");
    writeFileSync(file, "algo: trpo\nenv: Pendulum-v1\nsteps: 8\nnumSteps: 4\nbatchSize: 4\nhidden: [4]\ngamma: 0.8\n");
    const own = join(folder, "from-file");
    const { code, err } = await run("rl", "--config", file, "--gamma", "0.7", "--evaluate-every", "0", "--runs", own);
    expect(err).toBe("");
    expect(code).toBe(0);
    // rl-baselines3-zoo, hyperparams/trpo.yml, Pendulum-v1.
    expect(JSON.parse(readFileSync(join(own, readdirSync(own)[0], "config.json"), "utf8"))).toMatchObject({
      algo: "trpo",
      numEnvs: 2,
      useSde: true,
      sdeSampleFreq: 4,
      numCriticUpdates: 15,
      learningRateSchedule: "constant",
      gamma: 0.7,
    });
  });

  it("names a wrong key of a configuration file as it should stand there", async () => {
    const file = join(folder, "flags.yaml");
    writeFileSync(file, "num-envs: 2\n");
    expect((await run("rl", "--config", file)).err).toMatch(/expected `numEnvs`.*\nhint: Did you mean `numEnvs` \(flags\.yaml:1\)\?/);
  });

  it("goes on with a run", async () => {
    const { code, out, err } = await run("rl", "--resume", path, "--steps", "192");
    expect(err).toBe("");
    expect(code).toBe(0);
    expect(out).toMatch(/run: 192 environment steps, resumed at environment step 128 from/);
    expect(out).toMatch(/^environment step 192\/192 {2}return [\d.]+ {2}length [\d.]+/m);
    expect(out).toMatch(/^evaluation at environment step 192: return /m);
    expect(out).toMatch(/^finished at environment step 192\/192 after .*, best mean return [\d.]+ at environment step (64|128|192), /m);
    expect([...readMetrics(join(path, "metrics.jsonl"))].filter(({ kind }) => kind === "step")).toHaveLength(3);
  });

  it("says that a run is finished, where it stands, and how to go on", async () => {
    const before = readFileSync(join(path, "metrics.jsonl"), "utf8");
    const { code, out } = await run("rl", "--resume", path);
    expect(code).toBe(0);
    expect(out).toMatch(/is finished: it is at environment step 192 of 192/);
    expect(out).toMatch(/Set --steps above 192 to go on\./);
    expect(out).toMatch(/rl --resume \S+ --steps \d+\n$/);
    expect(out).not.toMatch(/resumed at|run: /);
    // Fewer steps than it has: the command that goes on needs more than those.
    expect((await run("rl", "--resume", path, "--steps", "64")).out).toMatch(/ --steps 384\n$/);
    expect(readFileSync(join(path, "metrics.jsonl"), "utf8")).toBe(before);
  });

  it("runs several seeds, and tells mean, interquartile mean and interval", async () => {
    const { code, out } = await run(
      "rl",
      "--algo",
      "a2c",
      "--steps",
      "80",
      "--seeds",
      "2",
      "--evaluation-episodes",
      "2",
      "--runs",
      join(folder, "seeds"),
    );
    expect(code).toBe(0);
    expect(out).toMatch(/^mean return, seed 1 +[\d.]+ ± .*\nbest evaluation, seed 1 .*\n2 seeds: mean return/m);
    expect(out).toMatch(/2 seeds: mean return [\d.]+, interquartile mean [\d.]+ \(95 % [\d.]+ to [\d.]+\)/);
    const names = readdirSync(join(folder, "seeds"));
    expect(names.filter((name) => name.includes("seed0"))).toHaveLength(1);
    expect(JSON.parse(readFileSync(join(folder, "seeds", "a2c-CartPole-v1-seeds.json"), "utf8"))).toMatchObject({
      algo: "a2c",
      numRuns: 2,
    });
  });

  it("takes an environment of a module, and refuses one that breaks its contract", async () => {
    const module = join(folder, "coin.mjs");
    const text = (reward: string): string => `
      const box = { kind: "box", shape: [1], low: Float64Array.of(-1), high: Float64Array.of(1) };
      export function environment() {
        return { observationSpace: box, actionSpace: { kind: "discrete", n: 2, start: 0 }, reset: () => [0],
          step: (action) => ({ observation: [0], reward: ${reward}, terminated: true, truncated: false }) };
      }`;
    writeFileSync(module, text("action"));
    const { code, out, err } = await run("rl", "--env", module, "--steps", "64", "--evaluate-every", "64", ...short, "--name", "coin");
    expect(err).toBe("");
    expect(code).toBe(0);
    // A project that was moved: the module lies elsewhere, and is the same one.
    const moved = join(mkdtempSync(join(folder, "moved-")), "coin.mjs");
    renameSync(module, moved);
    const coin = /run folder: (\S+)/.exec(out)?.[1] as string;
    const resumed = await run("rl", "--resume", coin, "--env", moved, "--steps", "128");
    expect(resumed.err).toBe("");
    expect(resumed.code).toBe(0);
    expect((await run("rl", "--resume", coin, "--env", "CartPole-v1", "--steps", "192")).code).toBe(1);
    const broken = join(folder, "broken.mjs");
    writeFileSync(broken, text("NaN"));
    const failed = await run("rl", "--env", broken, "--steps", "64", ...short, "--name", "broken");
    expect(failed.code).toBe(1);
    expect(failed.err).toMatch(/reward/);
  });

  it.each([
    [["--env", "Cartpole"], /Did you mean `CartPole-v1`/],
    [["--algo", "pppo"], /`--algo`: expected one of ppo, a2c, trpo/],
    [["--num-steps", "0"], /`--num-steps`: expected an integer > 0, got 0/],
    [["--env", "no-such-module.mjs"], /got nothing at/],
    [["--env-options", '{"gravty":1}'], /gravty/],
    [["--stop-when-solved", "--env", "Pendulum-v1"], /expected an environment with a threshold/],
    [["--steps", "ten"], /`--steps`: expected an integer/],
    [["--resume", "/no/such/run"], /expected/],
  ])("%j is a mistake that is told", async (argv, message) => {
    const { code, err } = await run("rl", ...argv, "--runs", join(folder, "none"));
    expect(code).toBeGreaterThan(0);
    expect(err).toMatch(message);
  });

  it("tells that a module does not load, and why", async () => {
    const module = join(folder, "unfinished.mjs");
    writeFileSync(module, "export function environment( {");
    const { code, err } = await run("rl", "--env", module, "--runs", join(folder, "none"));
    expect(code).toBe(2);
    expect(err).toMatch(/expected a module that can be loaded, got .*unfinished\.mjs/s);
    expect(err).not.toMatch(/defect of longwave/);
  });

  it("has help, and sends mistyped sub-commands to the right one", async () => {
    expect((await run("rl", "--help")).out).toMatch(/Learn from reward in an environment/);
    expect((await run("rl", "evalute")).err).toMatch(/Did you mean .*rl evaluate/);
    expect((await run("rl", "CartPole-v1")).err).toMatch(/rl --help` lists what it takes/);
    expect((await run("rl", "export", path, "-o", "policy.onnx")).err).toMatch(/Did you mean --output\?/);
    expect((await run("rl", "export", path, "-q")).err).toMatch(/expected an option that exists/);
  });
});

describe("rl evaluate, watch, export, zoo", () => {
  it("measures the policy of a run", async () => {
    const { code, out } = await run("rl", "evaluate", path, "--episodes", "5", "--num-envs", "2", "--json");
    expect(code).toBe(0);
    const result = JSON.parse(out);
    expect(result.returns).toHaveLength(5);
    // In CartPole every step has reward 1.
    expect(result.meanLength).toBeCloseTo(result.meanReturn, 9);
    const wrong = await run("rl", "evaluate", path, "--env", "Pendulum-v1");
    expect(wrong.err).toMatch(/expected an environment with observations in Box\(4\) \(it was trained in CartPole-v1\), got Box\(3\)/);
    expect((await run("rl", "evaluate", folder)).err).toMatch(/expected/);
  });

  it("tells which checkpoint it took, and takes the one that is asked for", async () => {
    const best = await run("rl", "evaluate", path, "--episodes", "1");
    expect(best.out).toMatch(/^policy +the best checkpoint at environment step (64|128|192) \(mean return [\d.]+\): .*step-00000\d+$/m);
    const latest = await run("rl", "watch", path, "--checkpoint", "latest", "--output", join(folder, "latest.html"));
    expect(latest.out).toMatch(/^policy: the latest checkpoint at environment step 192: .*step-00000192$/m);
    for (const which of ["192", "step-00000192", join(path, "checkpoints", "step-00000192")]) {
      const { out } = await run("rl", "export", path, "--checkpoint", which, "--output", join(folder, "192.onnx"), "--json");
      expect(JSON.parse(out)).toMatchObject({ environmentSteps: 192, policy: "the checkpoint at environment step 192" });
    }
    const direct = await run("rl", "evaluate", join(path, "checkpoints", "step-00000192"), "--episodes", "1");
    expect(direct.out).toMatch(/^policy +the checkpoint at environment step 192/m);
    const wrong = await run("rl", "evaluate", path, "--checkpoint", "7");
    expect(wrong.code).toBe(1);
    expect(wrong.err).toMatch(/expected a checkpoint of step 7, got steps .*192/);
  });

  it("draws an episode on a page whose script runs", async () => {
    const { code, out } = await run("rl", "watch", path, "--episodes", "2", "--json");
    expect(code).toBe(0);
    const { lengths } = JSON.parse(out);
    const page = readFileSync(join(path, "episode.html"), "utf8");
    expect(page).not.toMatch(/https?:\/\//);
    const { shapes, texts, click, seek } = play(page);
    expect(shapes()).toBeGreaterThan(0);
    seek(lengths[0]);
    expect(texts()).toContain(`Step ${lengths[0]} of ${lengths[0]}`);
    click();
    expect(texts()).toContain("Step 0 of");
  });

  it("writes an ONNX file", async () => {
    const output = join(folder, "policy.onnx");
    const { code, out } = await run("rl", "export", path, "--output", output, "--json");
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({
      path: output,
      environment: "CartPole-v1",
      tensors: [
        { name: "observations", dtype: "float32", shape: ["n", 4] },
        { name: "actions", dtype: "int64", shape: ["n"] },
        { name: "values", dtype: "float32", shape: ["n"] },
        { name: "logits", dtype: "float32", shape: ["n", 2] },
      ],
    });
    // The example of the help, as it stands there, in a process of its own.
    const { out: help } = await run("rl", "export", "--help");
    const example = help.match(/^ {2}import \{ InferenceSession[\s\S]*?console\.log.*$/m)?.[0] ?? "";
    const script = join(process.cwd(), "node_modules", `.longwave-export-${process.pid}.mjs`);
    writeFileSync(script, example.replace("policy.onnx", output));
    try {
      const { stdout, stderr } = spawnSync(process.execPath, [script], { encoding: "utf8" });
      expect(stderr).toBe("");
      expect(stdout).toMatch(/^[01]n -?[\d.]+\n$/);
    } finally {
      rmSync(script, { force: true });
    }
  });

  it("lists tuned settings", async () => {
    const { out } = await run("rl", "zoo", "--algo", "trpo");
    expect(out).toMatch(/trpo +HalfCheetah-v5 +1.00 M +1785 ± 69/);
    expect(out).toMatch(/^check it: +longwave rl zoo --algo trpo --env CartPole-v1 --reproduce$/m);
    expect((await run("rl", "zoo", "--env", "Pong")).err).toMatch(/expected an algorithm and environment with tuned settings/);
  });
});

describe("rl zoo --reproduce", () => {
  it("runs a row, and puts its return beside the published one", async () => {
    const argv = ["rl", "zoo", "--algo", "a2c", "--env", "CartPole-v1", "--reproduce", "--steps", "80", "--episodes", "2", "--seeds", "2"];
    const { code, out, err } = await run(...argv, "--runs", join(folder, "zoo"));
    expect(err).toBe("");
    expect(code).toBe(0);
    expect(out).toMatch(/^2 runs, each in a folder of its own in /);
    expect(out).toMatch(/^a2c in CartPole-v1, seed 1: mean return [\d.]+ over 2 episodes$/m);
    expect(out).toMatch(/^a2c +CartPole-v1 +80 +[\d.]+ \(95 % [\d.]+ to [\d.]+\) +500 ± 0 +[\d.]+s$/m);
    expect(out).toMatch(/Published returns are of longer runs: a2c 500 k environment steps\./);
    expect(readdirSync(join(folder, "zoo"))).toHaveLength(2);
  });
});

/** Runs the page's script with the least of a browser that it needs. */
function play(page: string) {
  const data = /<script id="data" type="application\/json">(.*?)<\/script>/s.exec(page)?.[1] ?? "";
  const script = /<script>(.*?)<\/script>/s.exec(page)?.[1] ?? "";
  let numShapes = 0;
  const context = new Proxy(
    {},
    {
      get: (_, name) => () => {
        if (name === "stroke" || name === "fill" || name === "fillText") numShapes++;
      },
      set: () => true,
    },
  );
  type Listener = (event: Record<string, unknown>) => void;
  const made = new Map<string, Record<string, unknown>>();
  const element = (id: string): Record<string, unknown> => {
    const known = made.get(id);
    if (known) return known;
    const listeners = new Map<string, Listener>();
    const one = {
      textContent: id === "data" ? data : "",
      value: id === "speed" ? "1" : "0",
      width: 100,
      height: 100,
      listeners,
      getContext: () => context,
      addEventListener: (name: string, listener: Listener) => listeners.set(name, listener),
      add: () => undefined,
    };
    made.set(id, one);
    return one;
  };
  const document = { getElementById: element, documentElement: {}, addEventListener: () => undefined, body: {} };
  const sandbox = {
    document,
    getComputedStyle: () => ({ getPropertyValue: () => " #123456" }),
    requestAnimationFrame: () => undefined,
    matchMedia: () => ({ addEventListener: () => undefined }),
    Option: class {},
  };
  new Script(script).runInContext(createContext(sandbox));
  const listenersOf = (id: string) => element(id).listeners as Map<string, Listener>;
  return {
    shapes: () => numShapes,
    texts: () => String(element("facts").textContent),
    click: () => listenersOf("play").get("click")?.({}),
    seek(step: number) {
      element("place").value = String(step);
      listenersOf("place").get("input")?.({});
    },
  };
}
