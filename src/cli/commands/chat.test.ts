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
