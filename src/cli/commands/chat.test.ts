// `longwave chat` over a pipe: lines are asked in turn, and a signal ends it also while it waits for the next one.
import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { bufferedOutput } from "../io.ts";
import { runCli } from "../run-cli.ts";

const argv = ["chat", "test/golden/checkpoints/smollm2", "--threads", "1", "--no-do-sample", "-n", "4"];

function start() {
  const [stdout, stderr, stdin] = [bufferedOutput(), bufferedOutput(), new PassThrough()];
  const controller = new AbortController();
  const code = runCli(argv, { stdout, stderr, stdin, env: {}, signal: controller.signal });
  return { stdout, stderr, stdin, controller, code };
}

test("asks what comes through a pipe, and ends with it", async () => {
  const { stdout, stdin, code, stderr } = start();
  stdin.end("Hello\n/history\n/undo\n/undo\nAnd \\\nnow?\n/history\n");
  expect(await code, stderr.text()).toBe(0);
  const out = stdout.text();
  expect(out).toContain("user: Hello\nassistant: ");
  expect(out).toContain("(taken back)\n(nothing to take back)");
  expect(out).toContain("user: And \nnow?\n");
});

test("ends at a signal while it waits", async () => {
  const { stdout, stdin, controller, code } = start();
  stdin.write("/help\n");
  while (!stdout.text().includes("/exit")) await new Promise((done) => setTimeout(done, 5));
  controller.abort();
  expect(await code).toBe(130);
});

/** A chat at a terminal: keys in, what the screen was sent out. */
function atTerminal(...more: string[]) {
  const stdin = Object.assign(new PassThrough(), { isTTY: true as const, setRawMode: () => undefined });
  const [stdout, stderr] = [bufferedOutput({ isTTY: true }), bufferedOutput({ isTTY: true })];
  const signal = new AbortController().signal;
  const code = runCli([...argv.slice(0, -2), ...more], { stdout, stderr, stdin, env: {}, signal });
  let seen = 0;
  /** Waits until the screen says something new. */
  const shown = async (what: string | RegExp): Promise<string> => {
    for (;;) {
      const text = stdout.text().slice(seen);
      const at = typeof what === "string" ? text.indexOf(what) : text.search(what);
      if (at >= 0) {
        seen += at + 1;
        return text;
      }
      await new Promise((done) => setTimeout(done, 5));
    }
  };
  return { stdout, stderr, stdin, code, shown };
}

const ctrlC = "\u0003";

test("Ctrl-C stops an answer, and /stats tells of what there was of it", async () => {
  // The model would soon end by itself, and before the key is pressed.
  const { stdin, code, shown, stdout } = atTerminal("-n", "5000", "--context", "6000", "--suppress-tokens", "398");
  await shown("> ");
  stdin.write("/stats\r");
  await shown("no answer yet");
  await shown("> ");
  stdin.write("Hello\r");
  await shown(/\n\r?[^\n]{20}/);
  stdin.write(ctrlC);
  await shown("(stopped)");
  await shown("> ");
  stdin.write("/stats\r");
  const line = await shown(/\d+ tokens read.*\n/);
  const [, written] = /; (\d+) written at [\d.]+ tokens\/s, then stopped/.exec(line) ?? [];
  expect(Number(written)).toBeGreaterThan(1);
  expect(Number(written)).toBeLessThan(5000);
  stdin.write("/quit\r");
  expect(await code, stdout.text()).toBe(0);
});

test("Ctrl-C at the prompt takes back the line; twice on an empty one it leaves", async () => {
  const { stdin, code, shown, stdout } = atTerminal("-n", "2");
  await shown("> ");
  stdin.write("never asked");
  await shown("never asked");
  stdin.write(ctrlC);
  await shown("\n");
  await shown("> ");
  stdin.write("nor this \\\r");
  await shown(/\. /);
  stdin.write(ctrlC);
  await shown("> ");
  stdin.write(ctrlC);
  await shown("(Ctrl-C once more, Ctrl-D or /quit leaves)");
  // Something else in between: the next one is a first one again.
  stdin.write("/history\r");
  await shown("/history");
  await shown("> ");
  stdin.write(ctrlC);
  await shown("(Ctrl-C once more");
  stdin.write(ctrlC);
  expect(await code).toBe(0);
  expect(stdout.text()).not.toContain("user: ");
});
