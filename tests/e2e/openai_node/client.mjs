// The official client for Node.js against `plw serve`: `node client.mjs BASE_URL TRAINING_FILE`.
// Prints one line of JSON per finished part, and fails at the first expectation that does not hold.

import assert from "node:assert/strict";
import { File } from "node:buffer";
import fs from "node:fs";
import OpenAI, { toFile } from "openai";

globalThis.File ??= File; // Node.js 18 has no such global, which the client's message advises to set.
const [baseURL, path] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0, logLevel: "warn" });
const { jobs } = client.fineTuning;
// The client reports what it does not expect as warnings.
console.warn = console.error = (...words) => assert.fail(words.join(" "));
process.on("warning", ({ message }) => {
  if (!message.startsWith("buffer.File is an experimental")) assert.fail(message); // Node.js 18
});
const done = (part, fields = {}) => console.log(JSON.stringify({ part, ...fields }));
const FINAL = ["succeeded", "failed", "cancelled"];

async function rejected(call, kind) {
  await assert.rejects(call, (error) => {
    assert.ok(error instanceof kind, `${error}`);
    return true;
  });
}

async function waitFor(id) {
  const deadline = Date.now() + 300_000;
  for (;;) {
    const job = await jobs.retrieve(id);
    if (FINAL.includes(job.status)) return job;
    assert.ok(Date.now() < deadline, `${id} is still ${job.status}`);
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
}

// Upload
const file = await client.files.create({ file: fs.createReadStream(path), purpose: "fine-tune" });
assert.equal(file.object, "file");
assert.equal(file.status, "processed");
assert.equal((await client.files.waitForProcessing(file.id)).id, file.id);
assert.equal(await (await client.files.content(file.id)).text(), fs.readFileSync(path, "utf8"));
const broken = await client.files.create({
  file: await toFile(Buffer.from("{\n"), "broken.jsonl"),
  purpose: "fine-tune",
});
assert.match(broken.status_details, /line 1: not valid JSON/);
await rejected(
  jobs.create({ model: "tiny", training_file: broken.id }),
  OpenAI.BadRequestError,
);
done("upload");

// Each form of the weight. The jobs wait in the queue, because the paused ones never start.
const base = { model: "tiny", training_file: file.id };
const forms = [
  { prompt_loss_weight: 0.25 },
  { method: { type: "supervised", supervised: { hyperparameters: { prompt_loss_weight: 0.25 } } } },
  { hyperparameters: { prompt_loss_weight: 0.25 } },
  { prompt_loss_weight: "auto" },
];
for (const form of forms) {
  const job = await jobs.create({ ...base, ...form });
  const weight = form.prompt_loss_weight ?? 0.25;
  assert.equal(job.object, "fine_tuning.job");
  assert.equal(job.prompt_loss_weight, weight);
  assert.equal(job.hyperparameters.prompt_loss_weight, weight);
  assert.equal(job.method.supervised.hyperparameters.prompt_loss_weight, weight);
  assert.equal((await jobs.cancel(job.id)).status, "cancelled");
}
await rejected(jobs.create({ ...base, prompt_loss_weight: 2 }), OpenAI.BadRequestError);
done("weights");

// Wait, and follow the events of a running job with `after`.
const job = await jobs.create({
  ...base,
  suffix: "node",
  metadata: { team: "node" },
  hyperparameters: { n_epochs: 2 },
  prompt_loss_weight: 0.1,
});
const other = await jobs.create({ ...base, hyperparameters: { n_epochs: 50, batch_size: 1 } });
const ended = await waitFor(job.id);
assert.equal(ended.status, "succeeded", JSON.stringify(ended.error));
assert.ok(Number.isInteger(ended.trained_tokens) && Number.isInteger(ended.finished_at));
const all = [];
for await (const event of jobs.listEvents(job.id, { limit: 3 })) all.push(event);
assert.equal(new Set(all.map((event) => event.id)).size, all.length);
assert.equal(all[0].message, "The job has successfully completed");
assert.equal(all.at(-1).message, `Created fine-tuning job: ${job.id}`);
const rest = await jobs.listEvents(job.id, { after: all[4].id, limit: 2 });
assert.deepEqual(rest.data, all.slice(5, 7));
const [result] = ended.result_files;
const rows = (await (await client.files.content(result)).text()).trim().split("\n");
assert.equal(rows.length, 1 + all.filter((event) => event.message.startsWith("Step ")).length);
done("events", { events: all.length });

// Pause, resume and cancel a running job.
while ((await jobs.retrieve(other.id)).status !== "running")
  await new Promise((resolve) => setTimeout(resolve, 100));
const paused = await jobs.pause(other.id);
assert.equal(paused.status, "queued");
assert.equal(paused.paused, true);
assert.equal((await jobs.resume(other.id)).paused, false);
await rejected(jobs.resume(other.id), OpenAI.BadRequestError);
const cancelled = await jobs.cancel(other.id);
assert.equal(cancelled.status, "cancelled");
await rejected(jobs.cancel(other.id), OpenAI.BadRequestError);
await rejected(jobs.retrieve("ftjob-none"), OpenAI.NotFoundError);
done("pause");

// Pages of more than 150 jobs, newest first.
const created = [];
for (let number = 0; number < 150; number++) {
  const one = await jobs.create({ ...base, seed: number });
  await jobs.cancel(one.id);
  created.unshift(one.id);
}
const listed = [];
for await (const one of jobs.list()) listed.push(one.id);
assert.deepEqual(listed.slice(0, 150), created);
assert.equal(listed.length, 150 + forms.length + 2);
let pages = 0;
let page = await jobs.list({ limit: 100 });
for (;;) {
  pages += 1;
  if (!page.hasNextPage()) break;
  page = await page.getNextPage();
}
assert.equal(pages, 2);
done("pages", { jobs: listed.length });

// Chat with the tuned model, streamed too; then delete it and the file.
const model = ended.fine_tuned_model;
assert.match(model, /^ft:tiny:plw:node:/);
assert.equal((await client.models.retrieve(model)).id, model);
const messages = [{ role: "user", content: "Add 1 and 2." }];
const answer = await client.chat.completions.create({ model, messages, max_tokens: 3 });
assert.equal(answer.model, model);
assert.equal(answer.choices[0].message.role, "assistant");
let chunks = 0;
for await (const chunk of await client.chat.completions.create({
  model, messages, max_tokens: 3, stream: true,
})) {
  assert.equal(chunk.model, model);
  chunks += 1;
}
assert.ok(chunks > 0);
done("chat", { text: answer.choices[0].message.content, chunks });
const [checkpoint] = (await jobs.checkpoints.list(job.id)).data;
assert.equal(checkpoint.fine_tuned_model_checkpoint, model);
assert.deepEqual(await client.models.delete(model), { id: model, object: "model", deleted: true });
await rejected(client.models.retrieve(model), OpenAI.NotFoundError);
await rejected(
  client.chat.completions.create({ model, messages }),
  OpenAI.NotFoundError,
);
assert.equal((await client.files.delete(file.id)).deleted, true);
await rejected(client.files.retrieve(file.id), OpenAI.NotFoundError);
done("delete");
