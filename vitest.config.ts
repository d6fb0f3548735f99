import { defineConfig } from "vitest/config";

const long = process.env.LONGWAVE_TEST_LONG === "1";

export default defineConfig({
  test: {
    include: ["src/**/*.test.ts", "test/**/*.test.ts"],
    // Native code and koffi callbacks: one process per file, so that a crash names its file.
    pool: "forks",
    maxWorkers: 2,
    testTimeout: long ? 3_600_000 : 60_000,
    hookTimeout: 60_000,
  },
});
