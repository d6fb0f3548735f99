// Opens a report in headless Chromium and fails when its console says anything, when it asks for anything over the network, or when its
// script did not run to its end.   node scripts/check-report.mjs <report.html>...
//   CHROMIUM   the browser, where it is not found on the PATH as chromium, chromium-browser or google-chrome

import { execFile, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const pages = process.argv.slice(2);
if (pages.length === 0) {
  console.error("check-report: expected the path of a report, got none.");
  process.exit(2);
}
const names = [process.env.CHROMIUM, "chromium", "chromium-browser", "google-chrome"].filter((name) => name);
const browser = names.find((name) => spawnSync(name, ["--version"], { stdio: "ignore" }).status === 0);
if (!browser) {
  console.error("check-report: expected Chromium on the PATH or in CHROMIUM, found none.");
  process.exit(2);
}

/** What Chromium itself asks for at its start whatever the page: updates, the time, its accounts. */
const browsersOwn = /^(?:\w+ )(?:https?:\/\/)?(?:update\.googleapis|clients\d\.google|accounts\.google)\.com[:/]/;
/** Everything that is asked for goes through this proxy, which notes it and refuses. */
const requests = [];
const proxy = createServer((request, response) => {
  requests.push(`${request.method} ${request.url}`);
  response.writeHead(502).end();
});
proxy.on("connect", (request, socket) => {
  requests.push(`CONNECT ${request.url}`);
  socket.end("HTTP/1.1 502 Bad Gateway\r\n\r\n");
});
await new Promise((done) => proxy.listen(0, "127.0.0.1", done));

async function open(page) {
  const profile = mkdtempSync(join(tmpdir(), "longwave-chromium-"));
  const flags = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--disable-extensions",
    `--user-data-dir=${profile}`,
    `--proxy-server=127.0.0.1:${proxy.address().port}`,
    "--proxy-bypass-list=<-loopback>",
    "--enable-logging=stderr",
    "--virtual-time-budget=3000",
    "--dump-dom",
    pathToFileURL(resolve(page)).href,
  ];
  try {
    return await new Promise((done) =>
      execFile(browser, flags, { maxBuffer: 256 * 2 ** 20, timeout: 120_000 }, (error, dom, log) => done({ error, dom, log })),
    );
  } finally {
    rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }
}

let failed = false;
for (const page of pages) {
  requests.length = 0;
  const problems = [];
  const { error, dom, log } = await open(page);
  if (error) problems.push(`the browser failed: ${error.message.split("\n")[0]}`);
  for (const line of log.split("\n").filter((text) => text.includes(":CONSOLE"))) problems.push(`console: ${line}`);
  for (const request of requests.filter((text) => !browsersOwn.test(text))) problems.push(`network: ${request}`);
  const count = (pattern) => dom.match(pattern)?.length ?? 0;
  const [charts, sliders] = [count(/data-chart="/g), count(/role="slider"/g)];
  if (charts > 0 && sliders === 0) problems.push("the script did not reach the charts");
  if (count(/data-rollouts="/g) > 0 && !/completions<\/span>/.test(dom)) problems.push("the script did not reach the table of completions");
  if (count(/<article /g) === 0) problems.push("there is no run on the page");
  const kibibytes = statSync(page).size / 1024;
  if (kibibytes > 2048) problems.push(`expected less than 2 MiB, got ${kibibytes.toFixed(0)} KiB`);
  for (const problem of problems) console.error(`problem: ${page}: ${problem}`);
  if (problems.length === 0) console.log(`${page}: ${charts} charts, ${kibibytes.toFixed(0)} KiB, no console messages, no requests`);
  failed ||= problems.length > 0;
}
proxy.close();
process.exitCode = failed ? 1 : 0;
