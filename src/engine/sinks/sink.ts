// Consumers of the event stream, and the adapter that feeds them while the stream passes through.
import { storageRemedy } from "../../base/atomic.ts";
import type { RunEvent, WarningEvent } from "../events.ts";

/** Writes events somewhere. Both methods may throw; {@link withSinks} turns that into one warning. */
export interface Sink {
  /** What it writes, for messages: `metrics.jsonl`. */
  readonly name: string;
  write(event: RunEvent): void;
  close(): void;
}

/**
 * Passes a stream on and hands every event to every sink first. A sink that fails (a full disk, a folder taken away) is closed and
 * left out from then on; the stream carries one warning about it and goes on.
 */
export async function* withSinks(events: AsyncGenerator<RunEvent>, sinks: readonly Sink[]): AsyncGenerator<RunEvent> {
  const live = new Set(sinks);
  const deliver = (event: RunEvent): WarningEvent[] => {
    const warnings: WarningEvent[] = [];
    for (const sink of live) {
      try {
        sink.write(event);
      } catch (error) {
        live.delete(sink);
        closeQuietly(sink);
        warnings.push(warningAbout(sink, error, event));
      }
    }
    // The other sinks should know; one that fails on this too is reported in turn.
    return warnings.flatMap((warning) => [warning, ...deliver(warning)]);
  };
  try {
    for await (const event of events) {
      const warnings = deliver(event);
      // A consumer may stop at run-end, so warnings go ahead of it.
      if (event.kind === "run-end") yield* warnings;
      yield event;
      if (event.kind !== "run-end") yield* warnings;
    }
  } finally {
    for (const sink of live) closeQuietly(sink);
  }
}

function warningAbout(sink: Sink, error: unknown, event: RunEvent): WarningEvent {
  const reason = error instanceof Error ? error.message : String(error);
  return {
    kind: "warning",
    step: event.step,
    total: event.total,
    time: event.time,
    code: "sink-failed",
    message: `${sink.name}: cannot be written any more: ${reason}`,
    hint: `The run goes on without it. ${storageRemedy(error) ?? "Resume from a checkpoint to have the whole record."}`,
  };
}

/** Every write is complete by itself, so a failing close loses nothing. */
function closeQuietly(sink: Sink): void {
  try {
    sink.close();
  } catch {
    // The descriptor is gone either way.
  }
}
