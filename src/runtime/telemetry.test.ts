import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { disableTelemetry } from "./telemetry.ts";

test("a value that the user has set stays", () => {
  const environment: NodeJS.ProcessEnv = { ORT_DISABLE_TELEMETRY: "0" };
  disableTelemetry(environment);
  expect(environment.ORT_DISABLE_TELEMETRY).toBe("0");
});

test.each(["native", "binding"])("the %s backend leaves nothing in the home folder", (backend) => {
  const home = mkdtempSync(join(tmpdir(), "longwave-home-"));
  try {
    const { ORT_DISABLE_TELEMETRY: _, ...environment } = process.env;
    const script = `import { openBackend } from ${JSON.stringify(new URL("./open.ts", import.meta.url).href)}; openBackend({ backend: ${JSON.stringify(backend)}, threads: 1 }).backend.dispose();`;
    const loader = new URL("./testing/register-typescript.mjs", import.meta.url).href;
    const run = spawnSync(process.execPath, ["--import", loader, "--input-type=module", "--eval", script], {
      env: { ...environment, HOME: home, XDG_CACHE_HOME: join(home, ".cache") },
      encoding: "utf8",
    });
    expect(run.stderr).toBe("");
    expect(run.status).toBe(0);
    expect(readdirSync(home)).toEqual([]);
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
});
