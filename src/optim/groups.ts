// Settings of parameter groups: the groups of the flat layout, each with its own weight decay and learning rate.
import { nearest, UsageError } from "../base/errors.ts";
import type { FlatLayout } from "../runtime/flat.ts";

/** What differs for one group of the parameters' layout. */
export interface GroupOptions {
  /** Default: the optimiser's. */
  weightDecay?: number;
  /** Factor of the learning rate of every step. Default 1. */
  learningRateScale?: number;
}

export interface GroupSettings {
  readonly weightDecay: number;
  readonly learningRateScale: number;
}

/**
 * Settings of every group of `layout`: what `groups` says of it, over `base`.
 * @throws UsageError for a group that the layout does not have, and for negative numbers.
 */
export function groupSettings(
  layout: FlatLayout,
  groups: Readonly<Record<string, GroupOptions>>,
  base: { weightDecay: number; learningRateScale?: number },
): Map<string, GroupSettings> {
  checkGroupNames(layout, Object.keys(groups));
  for (const [name, group] of Object.entries(groups)) {
    for (const key of ["weightDecay", "learningRateScale"] as const) {
      const value = group[key];
      if (value !== undefined && !(value >= 0 && Number.isFinite(value)))
        throw new UsageError(`optimizer: expected a ${key} of at least 0 for group "${name}", got ${value}`);
    }
  }
  return new Map(
    layout.groups.map(({ name }) => [
      name,
      {
        weightDecay: groups[name]?.weightDecay ?? base.weightDecay,
        learningRateScale: (groups[name]?.learningRateScale ?? 1) * (base.learningRateScale ?? 1),
      },
    ]),
  );
}

/** @throws UsageError naming the nearest group. */
export function checkGroupNames(layout: FlatLayout, names: readonly string[]): void {
  const known = layout.groups.map(({ name }) => name);
  for (const name of names) {
    if (known.includes(name)) continue;
    const guess = nearest(name, known);
    throw new UsageError(`optimizer: expected a parameter group (${known.join(", ")}), got "${name}"`, {
      hint: guess === undefined ? "Groups are named where the flat layout is made." : `Did you mean "${guess}"?`,
    });
  }
}
