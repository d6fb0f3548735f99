// Picks the backend: ONNX Runtime's C API where koffi loads, else onnxruntime-node's own addon, else an error that says how to mend it.
import { BackendError, nearest, UsageError } from "../base/errors.ts";
import type { Backend, BackendOptions } from "./backend.ts";
import { openBindingBackend } from "./binding/backend.ts";
import { openNativeBackend } from "./native/backend.ts";

export type BackendName = Backend["name"];

export interface OpenOptions extends BackendOptions {
  /** Take this backend and no other. Default: LONGWAVE_BACKEND, else native with binding as the fallback. */
  backend?: BackendName;
}

export interface OpenedBackend {
  backend: Backend;
  /** Why the native backend was not taken. Undefined when it was, and when the caller chose. */
  fallbackReason?: string;
}

/** Platforms for which onnxruntime-node ships a library. */
const platforms = ["linux-x64", "linux-arm64", "darwin-arm64", "win32-x64", "win32-arm64"];

const openers: Record<BackendName, (options: BackendOptions) => Backend> = { native: openNativeBackend, binding: openBindingBackend };

/**
 * Opens ONNX Runtime. Backends of one process may live side by side; native ones share one environment and its thread pool.
 * @param open how each backend is opened; given by tests only.
 * @throws BackendError when none loads, UsageError for an unknown name or number of threads.
 */
export function openBackend(options: OpenOptions = {}, open: typeof openers = openers): OpenedBackend {
  const chosen = options.backend ?? process.env.LONGWAVE_BACKEND;
  if (chosen) return { backend: open[backendName(chosen, options.backend === undefined)](options) };
  try {
    return { backend: open.native(options) };
  } catch (native) {
    if (!(native instanceof BackendError)) throw native;
    try {
      return { backend: open.binding(options), fallbackReason: native.message };
    } catch (binding) {
      throw new BackendError(`openBackend: expected ONNX Runtime to load, got "${native.message}" and "${textOf(binding)}"`, {
        cause: native,
        hint: remedy(),
      });
    }
  }
}

/** What to do when neither backend loads on this platform. */
export function remedy(platform: string = `${process.platform}-${process.arch}`): string {
  return platforms.includes(platform)
    ? "Run `ONNXRUNTIME_NODE_INSTALL=skip npm install`; after a change of Node or platform, `npm rebuild` or a fresh node_modules."
    : `ONNX Runtime ships no library for ${platform}; it runs on ${platforms.join(", ")}.`;
}

function backendName(name: string, fromEnvironment: boolean): BackendName {
  if (name === "native" || name === "binding") return name;
  const close = nearest(name, Object.keys(openers));
  throw new UsageError(`${fromEnvironment ? "LONGWAVE_BACKEND" : "backend"}: expected native or binding, got ${name}`, {
    hint: close === undefined ? undefined : `Did you mean ${close}?`,
  });
}

const textOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
