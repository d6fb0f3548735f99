// Downloads against a server with the hub's endpoints: model info, file tree, resolve with ranges.
import { execFile, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it, test } from "vitest";
import { hostTag } from "../base/atomic.ts";
import { AbortedError, RemoteError, UsageError } from "../base/errors.ts";
import { downloadModel, type HubOptions, type HubProgress } from "./hub.ts";

const commit = "a".repeat(40);
const weights = Buffer.from(Uint8Array.from({ length: 300_000 }, (_, i) => (i * 31) % 251));
let files: Record<string, Buffer>;
/** By path of the request: what to do instead of answering, in order. */
let faults: [path: RegExp, (request: IncomingMessage, response: ServerResponse) => void][];
let requests: { path: string; range: string | undefined; authorization: string | undefined }[];
let server: Server;
let hubUrl: string;
let cacheDir: string;
/** What the list says instead of the truth. */
let lies: Record<string, Record<string, unknown>>;

const sha256 = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");
const gitHash = (bytes: Buffer): string => createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");

function answer(request: IncomingMessage, response: ServerResponse): void {
  const path = decodeURIComponent(request.url ?? "");
  requests.push({ path, range: request.headers.range, authorization: request.headers.authorization });
  const fault = faults.findIndex(([pattern]) => pattern.test(path));
  if (fault >= 0) {
    const [[, act]] = faults.splice(fault, 1);
    act(request, response);
    return;
  }
  const json = (value: unknown): void => void response.setHeader("content-type", "application/json").end(JSON.stringify(value));
  if (/^\/api\/models\/owner\/name\/revision\/(main|v1\/x|a{40})\?/.test(path)) {
    json({ _id: "1", id: "owner/name", sha: commit, lastModified: "2026-01-01T00:00:00.000Z" });
  } else if (path.startsWith(`/api/models/owner/name/tree/${commit}?`)) {
    json([
      { type: "directory", path: "onnx", oid: "b".repeat(40), size: 0 },
      { type: "file", path: "onnx/model.safetensors", oid: "b".repeat(40), size: 5 },
      ...Object.entries(files).map(([name, bytes]) => ({
        type: "file",
        path: name,
        size: bytes.length,
        oid: gitHash(bytes),
        ...(/\.(safetensors|bin|gguf)$/.test(name) ? { lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: 134 } } : {}),
        ...lies[name],
      })),
    ]);
  } else {
    const bytes = files[path.replace(`/owner/name/resolve/${commit}/`, "")];
    if (bytes === undefined) {
      response.statusCode = 404;
      response.end("not found");
      return;
    }
    const from = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
    if (from > 0) response.writeHead(206, { "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` });
    response.end(bytes.subarray(from));
  }
}

beforeEach(async () => {
  files = {
    "config.json": Buffer.from("{}"),
    "tokenizer.json": Buffer.from('{"model":{}}'),
    "README.md": Buffer.from("# no"),
    "model.safetensors": weights,
    "pytorch_model.bin": weights,
  };
  faults = [];
  requests = [];
  lies = {};
  cacheDir = mkdtempSync(join(tmpdir(), "longwave-hub-"));
  server = createServer(answer);
  await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
  hubUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterEach(async () => {
  server.closeAllConnections();
  await new Promise((closed) => server.close(closed));
  rmSync(cacheDir, { recursive: true, force: true });
});

const download = (options: HubOptions = {}, source = "owner/name"): Promise<string> =>
  downloadModel(source, { hubUrl, cacheDir, attempts: 3, retryDelayMs: 1, ...options });
const status =
  (code: number) =>
  (_: IncomingMessage, response: ServerResponse): void => {
    response.statusCode = code;
    response.end();
  };
const resolves = (): typeof requests => requests.filter(({ path }) => path.includes("/resolve/"));

describe("a download", () => {
  it("takes what a model needs, in the layout of the shared cache", async () => {
    const folder = await download();
    const root = join(cacheDir, "models--owner--name");
    expect(folder).toBe(join(root, "snapshots", commit));
    expect(readdirSync(folder).sort()).toEqual(["config.json", "model.safetensors", "tokenizer.json"]);
    expect(readFileSync(join(folder, "model.safetensors")).equals(weights)).toBe(true);
    expect(readFileSync(join(root, "refs", "main"), "utf8")).toBe(commit);
    expect(readdirSync(join(root, "blobs")).sort()).toEqual(
      [sha256(weights), gitHash(files["config.json"]), gitHash(files["tokenizer.json"])].sort(),
    );
    if (lstatSync(join(folder, "config.json")).isSymbolicLink()) {
      expect(readlinkSync(join(folder, "config.json"))).toBe(join("..", "..", "blobs", gitHash(files["config.json"])));
    }
    expect(requests.every(({ authorization }) => authorization === undefined)).toBe(true);
  });

  it("is not repeated, follows changes, and knows revisions with slashes", async () => {
    await download();
    requests = [];
    expect(await download({}, "owner/name@v1/x")).toBe(join(cacheDir, "models--owner--name", "snapshots", commit));
    expect(resolves()).toEqual([]);
    expect(readFileSync(join(cacheDir, "models--owner--name", "refs", "v1", "x"), "utf8")).toBe(commit);
  });

  it("reports progress up to the size of each file, and sends the token", async () => {
    const events: HubProgress[] = [];
    await download({ onProgress: (event) => events.push(event), token: "hf_secret" });
    const own = events.filter(({ file }) => file === "model.safetensors");
    expect(own.at(-1)).toEqual({ file: "model.safetensors", loaded: weights.length, total: weights.length });
    expect(own.every(({ loaded }, i) => i === 0 || loaded >= own[i - 1].loaded)).toBe(true);
    expect(requests.every(({ authorization }) => authorization === "Bearer hf_secret")).toBe(true);
  });

  it("takes all parts of a split checkpoint, or torch's file where there is nothing else", async () => {
    files = {
      "config.json": Buffer.from("{}"),
      "model-00001-of-00002.safetensors": weights,
      "model-00002-of-00002.safetensors": weights.subarray(1),
      "model.safetensors.index.json": Buffer.from('{"weight_map":{"a":"model-00002-of-00002.safetensors"}}'),
    };
    expect(readdirSync(await download()).sort()).toEqual(Object.keys(files).sort());
    rmSync(cacheDir, { recursive: true });
    files = { "config.json": Buffer.from("{}"), "pytorch_model.bin": weights, "training_args.bin": weights };
    expect(readdirSync(await download()).sort()).toEqual(["config.json", "pytorch_model.bin"]);
  });

  it("GGUF: the one file, or the named one", async () => {
    files = { "model.Q4_0.gguf": weights, "model.Q8_0.gguf": weights.subarray(7) };
    await expect(download()).rejects.toThrow(/model.Q4_0.gguf, model.Q8_0.gguf/);
    const path = await download({ file: "model.Q8_0.gguf" });
    expect(statSync(path).size).toBe(weights.length - 7);
    expect(await download({ offline: true })).toBe(path);
  });
});

describe("what goes wrong", () => {
  const isWeights = /resolve.*model.safetensors/;

  it("a cut connection is continued where it was cut", async () => {
    faults.push([
      isWeights,
      (_, response) => {
        response.writeHead(200, { "content-length": weights.length });
        response.write(weights.subarray(0, 100_000), () => setTimeout(() => response.destroy(), 20));
      },
    ]);
    const folder = await download();
    expect(readFileSync(join(folder, "model.safetensors")).equals(weights)).toBe(true);
    const ranges = resolves().flatMap(({ path, range }) => (isWeights.test(path) ? [range] : []));
    expect(ranges).toHaveLength(2);
    expect(Number(/^bytes=(\d+)-$/.exec(ranges[1] ?? "")?.[1])).toBeGreaterThan(0);
  });

  it("one that is always cut ends in an error, and the next run goes on from there", async () => {
    for (let i = 0; i < 3; i++) faults.push([isWeights, (_, response) => response.destroy()]);
    faults.unshift([
      isWeights,
      (_, response) => {
        response.writeHead(200, { "content-length": weights.length });
        response.write(weights.subarray(0, 50_000), () => setTimeout(() => response.destroy(), 20));
      },
    ]);
    await expect(download()).rejects.toThrow(RemoteError);
    const folder = join(cacheDir, "models--owner--name");
    expect(existsSync(join(folder, "refs"))).toBe(false);
    expect(existsSync(join(folder, "blobs", `${sha256(weights)}.incomplete`))).toBe(true);
    expect(existsSync(join(folder, "snapshots", commit, "model.safetensors"))).toBe(false);
    await expect(download({ offline: true })).rejects.toThrow(/whole copy/);
    requests = [];
    expect(readFileSync(join(await download(), "model.safetensors")).equals(weights)).toBe(true);
    expect(resolves().find(({ path }) => isWeights.test(path))?.range).toMatch(/^bytes=\d{4,}-$/);
  });

  it("a server without ranges starts again", async () => {
    const cut = (_: IncomingMessage, response: ServerResponse): void => {
      response.writeHead(200, { "content-length": weights.length });
      response.write(weights.subarray(0, 90_000), () => setTimeout(() => response.destroy(), 20));
    };
    faults.push([isWeights, cut], [isWeights, (_, response) => void response.end(weights)]);
    expect(readFileSync(join(await download(), "model.safetensors")).equals(weights)).toBe(true);
  });

  it("a host without an address is asked for once", async () => {
    let calls = 0;
    const nowhere = (): Promise<Response> => {
      calls++;
      return Promise.reject(new TypeError("fetch failed", { cause: Object.assign(new Error("no address"), { code: "ENOTFOUND" }) }));
    };
    await expect(download({ fetch: nowhere })).rejects.toThrow(/got ENOTFOUND/);
    expect(calls).toBe(1);
  });

  it("errors of the server are tried again, up to a number", async () => {
    faults.push([/revision/, status(500)], [/tree/, status(503)], [isWeights, status(429)]);
    await download();
    rmSync(cacheDir, { recursive: true });
    for (let i = 0; i < 3; i++) faults.push([/revision/, status(502)]);
    await expect(download()).rejects.toThrow(/within 3 attempts, got status 502/);
    await expect(downloadModel("owner/name", { hubUrl: "http://127.0.0.1:9", cacheDir, attempts: 1 })).rejects.toThrow(RemoteError);
  });

  it.each([
    [401, /access denied/],
    [403, /access denied/],
    [404, /not found/],
  ])("status %i says what to do", async (code, pattern) => {
    faults.push([/revision/, status(code)]);
    const error = await download().catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(RemoteError);
    expect((error as RemoteError).message).toMatch(pattern);
    expect((error as RemoteError).hint).toMatch(/HF_TOKEN/);
    faults.push([isWeights, status(code)]);
    await expect(download()).rejects.toThrow(pattern);
  });

  it("content of another hash or size is not kept", async () => {
    const changed = Buffer.from(weights);
    changed[1234] ^= 1;
    faults.push([isWeights, (_, response) => void response.end(changed)]);
    await expect(download()).rejects.toThrow(/expected content with hash/);
    faults.push([isWeights, (_, response) => void response.end(Buffer.concat([weights, weights]))]);
    await expect(download()).rejects.toThrow(/expected 300000 bytes, got more/);
    for (let i = 0; i < 3; i++) faults.push([isWeights, (_, response) => void response.end(weights.subarray(0, 1000))]);
    await expect(download()).rejects.toThrow(/expected 300000 bytes, got 1000/);
    expect(faults).toHaveLength(0);
    expect(readdirSync(join(cacheDir, "models--owner--name", "blobs"))).not.toContain(sha256(weights));
  });

  it("names and hashes that would leave the cache are refused", async () => {
    delete files["pytorch_model.bin"];
    for (const lie of [
      { path: "..\\model.safetensors" },
      { lfs: { oid: "../../x", size: 3 } },
      { lfs: { oid: sha256(weights), size: "1e99" } },
      { size: -1 },
      { path: "model.safetensors\0" },
    ]) {
      lies = { "model.safetensors": lie };
      await expect(download()).rejects.toThrow(RemoteError);
    }
    expect(readdirSync(cacheDir).length).toBeLessThanOrEqual(1);
  });

  it("no model, no JSON, no commit", async () => {
    files = { "README.md": Buffer.from("") };
    await expect(download()).rejects.toThrow(/got README.md/);
    faults.push([/revision/, (_, response) => void response.end("<html>")]);
    await expect(download()).rejects.toThrow(RemoteError);
    faults.push([/revision/, (_, response) => void response.setHeader("content-type", "application/json").end('{"sha":"../x"}')]);
    await expect(download()).rejects.toThrow(/commit of 40/);
  });

  it("can be stopped", async () => {
    const controller = new AbortController();
    faults.push([
      isWeights,
      (_, response) => {
        response.writeHead(200, { "content-length": weights.length });
        response.write(weights.subarray(0, 1000));
        setTimeout(() => controller.abort(), 20);
      },
    ]);
    await expect(download({ signal: controller.signal })).rejects.toThrow(AbortedError);
  });
});

describe("what the caller's function throws", () => {
  it("ends the download as it is, and the next one goes on from there", async () => {
    const failure = new TypeError("fetch failed");
    const before = resolves().length;
    const onProgress = ({ file, loaded }: HubProgress): void => {
      if (file === "model.safetensors" && loaded > 0) throw failure;
    };
    expect(await download({ onProgress }).catch((error: unknown) => error)).toBe(failure);
    expect(resolves().filter(({ path }) => path.endsWith("model.safetensors")).length).toBe(before + 1);
    // Also where it throws before a byte of the answer was read.
    expect(await download({ onProgress }).catch((error: unknown) => error)).toBe(failure);
    expect(resolves().filter(({ path }) => path.endsWith("model.safetensors")).length).toBe(before + 2);
    requests = [];
    expect(readFileSync(join(await download(), "model.safetensors")).equals(weights)).toBe(true);
    expect(resolves().find(({ path }) => path.endsWith("model.safetensors"))?.range ?? "bytes=1-").toMatch(/^bytes=[1-9]/);
  });
});

describe("several downloads at once", () => {
  const isWeights = /resolve.*model.safetensors/;
  const blobs = (): string[] => readdirSync(join(cacheDir, "models--owner--name", "blobs"));
  const whole = (): string[] => [sha256(weights), gitHash(files["config.json"]), gitHash(files["tokenizer.json"])].sort();

  /** Half of the weights to each of `count` requests; the rest when all of them are there. */
  function meet(count: number): void {
    const waiting: ServerResponse[] = [];
    for (let i = 0; i < count; i++) {
      faults.push([
        isWeights,
        (_, response) => {
          response.writeHead(200, { "content-length": weights.length });
          response.write(weights.subarray(0, 150_000));
          waiting.push(response);
          if (waiting.length === count) for (const each of waiting) setTimeout(() => each.end(weights.subarray(150_000)), 20);
        },
      ]);
    }
  }

  it("in one process", async () => {
    meet(3);
    const folders = await Promise.all([download(), download(), download()]);
    expect(new Set(folders).size).toBe(1);
    expect(readFileSync(join(folders[0], "model.safetensors")).equals(weights)).toBe(true);
    expect(blobs().sort()).toEqual(whole());
    expect(readdirSync(folders[0]).sort()).toEqual(["config.json", "model.safetensors", "tokenizer.json"]);
  });

  it("in several processes", async () => {
    meet(2);
    const program = `import { downloadModel } from ${JSON.stringify(new URL("hub.ts", import.meta.url).href)};
      console.log(await downloadModel("owner/name", ${JSON.stringify({ hubUrl, cacheDir, attempts: 1 })}));`;
    const register = new URL("../runtime/testing/register-typescript.mjs", import.meta.url).href;
    const run = promisify(execFile);
    const start = () => run(process.execPath, ["--import", register, "--input-type=module", "--eval", program]);
    const [a, b] = await Promise.all([start(), start()]);
    expect(a.stdout).toBe(b.stdout);
    expect(readFileSync(join(a.stdout.trim(), "model.safetensors")).equals(weights)).toBe(true);
    expect(blobs().sort()).toEqual(whole());
  });

  it("one fails, the other does not notice; what it left goes when the file is there", async () => {
    const held: ServerResponse[] = [];
    faults.push(
      [
        isWeights,
        (_, response) => {
          response.writeHead(200, { "content-length": weights.length });
          response.write(weights.subarray(0, 100_000));
          held.push(response);
        },
      ],
      [isWeights, status(404)],
    );
    const first = download();
    while (held.length === 0) await new Promise((tick) => setTimeout(tick, 5));
    await expect(download()).rejects.toThrow(/not found/);
    held[0].end(weights.subarray(100_000));
    expect(readFileSync(join(await first, "model.safetensors")).equals(weights)).toBe(true);
    expect(blobs().sort()).toEqual(whole());
  });

  it("goes on with what a killed process left, and leaves alone what a living one writes", async () => {
    await download();
    const folder = join(cacheDir, "models--owner--name");
    const blob = join(folder, "blobs", sha256(weights));
    // A process that has ended.
    const { pid: dead } = spawnSync(process.execPath, ["--version"]);
    const name = (pid: number, id: string): string => `${blob}.incomplete-${pid}-0-${hostTag()}${id.repeat(8)}`;
    const living = name(process.ppid, "c");
    rmSync(blob);
    rmSync(join(folder, "snapshots", commit, "model.safetensors"));
    writeFileSync(name(dead, "a"), weights.subarray(0, 200_000));
    writeFileSync(name(dead, "b"), weights.subarray(0, 1000));
    writeFileSync(living, weights.subarray(0, 250_000));
    requests = [];
    await download();
    expect(resolves().map(({ range }) => range)).toEqual(["bytes=200000-"]);
    expect(blobs().sort()).toEqual([...whole(), basename(living)].sort());
    expect(readFileSync(blob).equals(weights)).toBe(true);
    // Nobody writes to it for hours.
    rmSync(blob);
    const longAgo = new Date(Date.now() - 3 * 3600 * 1000);
    utimesSync(living, longAgo, longAgo);
    requests = [];
    await download();
    expect(resolves().map(({ range }) => range)).toEqual(["bytes=250000-"]);
    expect(blobs().sort()).toEqual(whole());
  });
});

describe("without a connection", () => {
  it("the cache serves, by name and by commit, when asked to or when the hub is silent", async () => {
    const folder = await download();
    requests = [];
    expect(await download({ offline: true })).toBe(folder);
    expect(await download({ offline: true }, `owner/name@${commit}`)).toBe(folder);
    process.env.HF_HUB_OFFLINE = "1";
    try {
      expect(await download()).toBe(folder);
    } finally {
      delete process.env.HF_HUB_OFFLINE;
    }
    expect(requests).toEqual([]);
    for (let i = 0; i < 3; i++) faults.push([/revision/, (_, response) => response.destroy()]);
    expect(await download()).toBe(folder);
  });

  it("a copy with a missing part is none", async () => {
    const folder = await download();
    rmSync(join(cacheDir, "models--owner--name", "blobs", sha256(weights)));
    await expect(download({ offline: true })).rejects.toThrow(RemoteError);
    writeFileSync(join(cacheDir, "models--owner--name", "refs", "main"), "not a commit");
    await expect(download({ offline: true })).rejects.toThrow(RemoteError);
    expect(await download()).toBe(folder);
  });

  it("nothing there", async () => {
    await expect(download({ offline: true })).rejects.toThrow(/whole copy in the cache/);
  });
});

test.each(["name", "owner/name/file", "../name", "owner/..", "owner/name@../x", "owner/name@", "https://x/y"])(
  "%s is no name",
  async (source) => {
    await expect(download({}, source)).rejects.toThrow(UsageError);
    await expect(download({ token: "secret" })).rejects.toThrow(UsageError);
  },
);
