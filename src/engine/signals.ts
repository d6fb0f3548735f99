// SIGINT and SIGTERM as an AbortSignal: the first one lets the running step finish and the run save itself, the second exits at once.
// Only the command line installs this; a library that is imported never touches the process.
import { AbortedError } from "../base/errors.ts";

export interface SignalHandlers {
  /** Aborted by the first signal, with an {@link AbortedError} as its reason. */
  readonly signal: AbortSignal;
  /** Gives the signals back to their former handlers. */
  dispose(): void;
  [Symbol.dispose](): void;
}

export interface SignalOptions {
  /** Default SIGINT and SIGTERM. */
  signals?: readonly NodeJS.Signals[];
  /** Told the name of the first signal, e.g. to say "finishing the step; press again to exit at once". */
  onFirst?: (signal: NodeJS.Signals) => void;
  /** Told the name of the second signal, before the process ends. */
  onSecond?: (signal: NodeJS.Signals) => void;
}

/** Exit code after an interrupt, as shells have it (128 + SIGINT). */
export const interruptedExitCode = 130;

/** Installs the handlers; call `dispose` when the run is over. */
export function installSignalHandlers(options: SignalOptions = {}): SignalHandlers {
  const { signals = ["SIGINT", "SIGTERM"], onFirst, onSecond } = options;
  const controller = new AbortController();
  const handle = (name: NodeJS.Signals): void => {
    if (controller.signal.aborted) {
      onSecond?.(name);
      process.exit(interruptedExitCode);
    }
    controller.abort(new AbortedError(`interrupted by ${name}`));
    onFirst?.(name);
  };
  for (const name of signals) process.on(name, handle);
  const dispose = (): void => {
    for (const name of signals) process.off(name, handle);
  };
  return { signal: controller.signal, dispose, [Symbol.dispose]: dispose };
}
