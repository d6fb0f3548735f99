import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const long = process.env.LONGWAVE_TEST_LONG === "1";

const source = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  // Examples import the package by its name; tests run them on the sources.
  resolve: {
    alias: [
      { find: /^longwave\/(\w+)$/, replacement: source("./src/$1/index.ts") },
      { find: /^longwave$/, replacement: source("./src/index.ts") },
    ],
  },
  test: {
    include: ["src/**/*.test.ts", "test/**/*.test.ts"],
    // Native code and koffi callbacks: one process per file, so that a crash names its file.
    pool: "forks",
    maxWorkers: 2,
    testTimeout: long ? 3_600_000 : 60_000,
    hookTimeout: 60_000,
  },
});
