// The base of wrappers around one environment: everything passes through, and the state holds the wrapper's own and the inner one.
// A method that the inner environment lacks is lacking here too.
import { CheckpointError } from "../../../base/errors.ts";
import type { JsonRecord } from "../../../engine/events.ts";
import type { Drawing } from "../drawing.ts";
import type { Environment, EnvironmentStep, ResetOptions, Value } from "../environment.ts";
import type { Space } from "../spaces.ts";

export abstract class EnvironmentWrapper implements Environment {
  readonly inner: Environment;
  readonly observationSpace: Space;
  readonly actionSpace: Space;
  readonly actionMask?: () => ArrayLike<number>;
  readonly saveState?: () => JsonRecord;
  readonly restoreState?: (state: JsonRecord) => void;
  readonly drawing?: () => Drawing;

  constructor(inner: Environment, spaces: { observationSpace?: Space; actionSpace?: Space } = {}) {
    this.inner = inner;
    this.observationSpace = spaces.observationSpace ?? inner.observationSpace;
    this.actionSpace = spaces.actionSpace ?? inner.actionSpace;
    if (inner.actionMask) this.actionMask = () => (inner.actionMask as () => ArrayLike<number>)();
    if (inner.drawing) this.drawing = () => (inner.drawing as () => Drawing)();
    const { saveState, restoreState } = inner;
    if (saveState && restoreState) {
      this.saveState = () => ({ ...this.pack(), inner: saveState.call(inner) });
      this.restoreState = (state) => {
        if (typeof state.inner !== "object" || state.inner === null)
          throw new CheckpointError("environment: expected the state of a wrapped environment, got another");
        restoreState.call(inner, state.inner as JsonRecord);
        this.unpack(state);
      };
    }
  }

  reset(options?: ResetOptions): Value {
    return this.inner.reset(options);
  }

  abstract step(action: Value): EnvironmentStep;

  /** The wrapper's own state. */
  protected pack(): JsonRecord {
    return {};
  }

  protected unpack(_state: JsonRecord): void {}

  dispose(): void {
    this.inner.dispose?.();
  }
}
