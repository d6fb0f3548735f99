import { expect, test } from "vitest";
import { fittedSettings, type PretrainSettings, pretrainSchema } from "./pretrain-options.ts";

const settings = pretrainSchema.parse({ fitSeconds: 100, evaluateEvery: 225, sampleEvery: 0, checkpointEvery: 90 }) as PretrainSettings;

test("a slow machine takes the steps that fit, and what is due comes in proportion", () => {
  // 1 GFLOP a step at half of 1 GFLOP/s: 2 s a step.
  const fitted = fittedSettings(settings, 450, { flopsPerStep: 1e9, peakFlops: 1e9 });
  expect(fitted.steps).toBe(50);
  expect(fitted.settings).toMatchObject({ evaluateEvery: 25, sampleEvery: 0, checkpointEvery: 10 });
});

test("a warm-up of so many steps becomes shorter too; one that is a share stays one", () => {
  const slow = { flopsPerStep: 1e9, peakFlops: 1e9 };
  const warmup = (warmupSteps: number) =>
    fittedSettings({ ...settings, schedule: { kind: "cosine-warmup-with-min-lr", warmupSteps } } as PretrainSettings, 450, slow).settings
      .schedule;
  expect(warmup(45)).toMatchObject({ warmupSteps: 5 });
  expect(warmup(0.1)).toMatchObject({ warmupSteps: 0.1 });
});

test("a fast machine, no limit and a resumed run take all", () => {
  const slow = { flopsPerStep: 1e9, peakFlops: 1e9 };
  expect(fittedSettings(settings, 450, { flopsPerStep: 1e9, peakFlops: 1e11 })).toEqual({ settings, steps: 450 });
  expect(fittedSettings({ ...settings, fitSeconds: 0 }, 450, slow).steps).toBe(450);
  expect(fittedSettings({ ...settings, resume: "runs/a" }, 450, slow).steps).toBe(450);
  expect(fittedSettings(settings, 450, { flopsPerStep: 1e15, peakFlops: 1e9 }).steps).toBe(1);
});
