// fal's own JavaScript client, unchanged, led to another server in one of its three ways. The
// folder of its modules is the argument, what to do comes as JSON on stdin, what it saw goes out.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { createHash } from "node:crypto";

const { createFalClient } = createRequire(`${process.argv[2]}/`)("@fal-ai/client");
const told = JSON.parse(readFileSync(0, "utf8"));
const { app, input } = told;
const long = { ...input, num_inference_steps: 1000 };

function redirected(url) {
  return url
    .replace(/^https:\/\/queue\.fal\.run/, told.url)
    .replace(/^https:\/\/fal\.run/, `${told.url}/run`)
    .replace(/^https:\/\/rest\.fal\.ai/, told.url);
}

const REDIRECTIONS = {
  middleware: {
    requestMiddleware: async (request) => ({ ...request, url: redirected(request.url) }),
  },
  proxy: { proxyUrl: { url: `${told.url}/api/fal/proxy`, when: "always" } },
  fetch: { fetch: (url, options) => fetch(redirected(String(url)), options) },
};

function client(key) {
  return createFalClient({ credentials: key, ...REDIRECTIONS[told.redirection] });
}

const fal = client(told.key);

async function failure(promise) {
  try {
    await promise;
    return null;
  } catch (error) {
    const { name, status, body, message, requestId, timeoutType } = error;
    const fields = error.fieldErrors ?? null;
    return { name, status, body, message, requestId, timeoutType, fields };
  }
}

async function subscribe(options) {
  const states = [];
  let lines = [];
  const answer = await fal.subscribe(app, {
    input: { ...input, ...told.more },
    logs: true,
    ...options,
    onQueueUpdate: (update) => {
      states.push(update.status);
      lines = (update.logs ?? lines).map((log) => log.message ?? log);
    },
  });
  return { states, lines, data: answer.data, requestId: answer.requestId };
}

async function untilRuns(requestId) {
  for (;;) {
    const { status } = await fal.queue.status(app, { requestId });
    if (status === "IN_PROGRESS") return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function stored(url) {
  const answer = await fetch(url);
  const bytes = Buffer.from(await answer.arrayBuffer());
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  return { url, status: answer.status, type: answer.headers.get("content-type"), sha256 };
}

function blob(uri) {
  return new Blob([Buffer.from(uri.split(",")[1], "base64")], { type: "image/png" });
}

const SCENARIOS = {
  async subscribe() {
    const polling = await subscribe({ mode: "polling", pollInterval: 20 });
    const streaming = await subscribe({ mode: "streaming" });
    return { polling, streaming, run: await fal.run(app, { input }) };
  },

  async uploads() {
    const url = await fal.storage.upload(new File(["some text"], "a.txt", { type: "text/plain" }));
    const inside = { ...input, sync_mode: true };
    const linked = { ...inside, image_url: await fal.storage.upload(blob(input.image_url)) };
    // a Blob in the input is uploaded by the client itself
    const blobs = { ...inside, image_url: blob(input.image_url), mask_url: blob(input.mask_url) };
    const pictures = [];
    for (const one of [inside, linked, blobs]) {
      pictures.push((await fal.subscribe(app, { input: one, pollInterval: 20 })).data.images[0].url);
    }
    return { stored: await stored(url), different: new Set(pictures).size };
  },

  async large() {
    const parts = Array.from({ length: 10 }, (_, index) => Buffer.alloc(9.2 * 2 ** 20, index));
    const sha256 = createHash("sha256").update(Buffer.concat(parts)).digest("hex");
    const file = new File(parts, "large.bin", { type: "application/x-large" });
    return { size: file.size, sha256, stored: await stored(await fal.storage.upload(file)) };
  },

  async cancel() {
    const first = await fal.queue.submit(app, { input: long });
    await untilRuns(first.request_id);
    const second = await fal.queue.submit(app, { input });
    const position = second.queue_position;
    const ends = [];
    for (const { request_id: requestId } of [second, first]) {
      await fal.queue.cancel(app, { requestId });
      const status = await fal.queue.subscribeToStatus(app, { requestId, pollInterval: 20 });
      const result = await failure(fal.queue.result(app, { requestId }));
      ends.push({ status, result, again: await failure(fal.queue.cancel(app, { requestId })) });
    }
    return { position, ends };
  },

  async failed() {
    const { mask_url: _, ...without } = input;
    const wrong = { ...without, num_images: 0 };
    return [
      await failure(fal.subscribe(app, { input: wrong, pollInterval: 20 })),
      await failure(fal.subscribe(app, { input: wrong, mode: "streaming" })),
      await failure(fal.run(app, { input: wrong })),
    ];
  },

  async refused() {
    const requestId = "00000000-0000-4000-8000-000000000000";
    const wrong = client("id:wrong");
    return {
      key: await failure(wrong.subscribe(app, { input })),
      upload: await failure(wrong.storage.upload(new Blob(["x"]))),
      status: await failure(fal.queue.status(app, { requestId })),
      result: await failure(fal.queue.result(app, { requestId })),
      cancel: await failure(fal.queue.cancel(app, { requestId })),
      stream: await failure(
        fal.queue.subscribeToStatus(app, { requestId, mode: "streaming" }),
      ),
      app: await failure(fal.run("fal-ai/other", { input })),
    };
  },

  async late() {
    const first = await fal.queue.submit(app, { input: long });
    await untilRuns(first.request_id);
    const start = Date.now();
    const late = await failure(fal.subscribe(app, { input, startTimeout: 1.2, pollInterval: 20 }));
    const seconds = (Date.now() - start) / 1000;
    await fal.queue.cancel(app, { requestId: first.request_id });
    return { late, seconds };
  },
};

process.stdout.write(JSON.stringify(await SCENARIOS[told.scenario]()));
