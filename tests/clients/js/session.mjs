// Runs the JavaScript clients, as session.py runs the Python clients. Reads the targets as JSON from standard input, and
// writes one line of JSON for each client. Blocks connections to other hosts.
import assert from "node:assert/strict";
import dns from "node:dns";
import { createReadStream, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { createCohere } from "@ai-sdk/cohere";
import { createTogetherAI } from "@ai-sdk/togetherai";
import { CohereRerank } from "@langchain/cohere";
import Mixedbread from "@mixedbread/sdk";
import { Pinecone } from "@pinecone-database/pinecone";
import { rerank } from "ai";
import { CohereClient, CohereClientV2 } from "cohere-ai";
import OpenAI, { toFile } from "openai";
import runpodSdk from "runpod-sdk";
import Together from "together-ai";
import { createVoyage } from "voyage-ai-provider";
import { VoyageAIClient } from "voyageai";
import { XiorError } from "xior";

const NAMES = {
  CohereClient, CohereClientV2, CohereRerank, Mixedbread, OpenAI, Pinecone, Together, VoyageAIClient,
  createCohere, createTogetherAI, createVoyage, runpodSdk,
};
const LINES = JSON.parse(readFileSync(new URL("lines.json", import.meta.url)));
const QUERY = "What is a panda?";
const DOCUMENTS = ["hi", "it is a bear", "The giant panda is a bear species endemic to China."];
const TOP = 2;

// Evaluates the client's line.
function made(name, target) {
  const line = LINES[name].replace(/"URL/g, `"${target.url}`).replaceAll("KEY", target.key);
  const given = Object.keys(NAMES);
  return new Function(...given, `return ${line.replaceAll("MODEL", target.model)}`)(...given.map((it) => NAMES[it]));
}

function ranked(rows, score, text) {
  assert.deepEqual(rows.map((row) => row.index), [2, 1]);
  const scores = rows.map(score);
  assert.ok(scores.every((each) => each >= 0 && each <= 1) && scores[0] > scores[1], `scores ${scores}`);
  if (text) assert.deepEqual(rows.map(text), [DOCUMENTS[2], DOCUMENTS[1]]);
  return `${rows.length} of ${DOCUMENTS.length} ranked${text ? ", with documents" : ""}`;
}

const scored = (row) => row.relevanceScore;
const underscored = (row) => row.relevance_score;
const withText = (row) => row.document.text;

async function throughAi(name, target, hasty) {
  const model = made(name, target);
  const options = hasty ? { maxRetries: 0 } : {};
  const answer = await rerank({ model, query: QUERY, documents: DOCUMENTS, topN: TOP, ...options });
  const rows = answer.ranking.map((row) => ({ ...row, index: row.originalIndex }));
  return ranked(rows, (row) => row.score, (row) => row.document);
}

async function viaLangchain(name, target) {
  const compressor = made(name, target);
  const rows = await compressor.rerank(DOCUMENTS, QUERY, { topN: TOP });
  return ranked(rows, scored);
}

async function models(name, target) {
  const client = made(name, target);
  const listed = (await client.models.list()).data.map((model) => model.id);
  assert.ok(listed.includes((await client.models.retrieve(target.model)).id));
  return `${listed.length} model listed`;
}

// Uploads, creates, polls and downloads a batch, then lists and deletes its input.
async function batches(name, target) {
  const client = made(name, target);
  const lines = [QUERY, "bear", "giant panda of China"].map((query, number) => ({
    custom_id: `query-${number}`, method: "POST", url: "/v1/rerank",
    body: { model: target.model, query, documents: DOCUMENTS, top_n: TOP },
  }));
  const content = lines.map((line) => `${JSON.stringify(line)}\n`).join("");
  // The client retries this upload, but not one from a stream.
  const upload = { file: await toFile(Buffer.from(content), "requests.jsonl"), purpose: "batch" };
  const file = await client.files.create({ ...upload, expires_after: { anchor: "created_at", seconds: 3600 } });
  const streamed = await uploadFromDisk(client, content);
  assert.deepEqual([streamed.bytes, streamed.filename], [content.length, "requests.jsonl"]);
  assert.deepEqual([file.bytes, file.filename], [content.length, "requests.jsonl"]);
  assert.equal(file.expires_at, file.created_at + 3600);
  const metadata = { team: "search" };
  const asked = { input_file_id: file.id, endpoint: "/v1/rerank", completion_window: "24h", metadata };
  const batch = await ended(client, await client.batches.create(asked));
  assert.equal(batch.status, "completed");
  assert.deepEqual(batch.request_counts, { total: lines.length, completed: lines.length, failed: 0 });
  assert.deepEqual([batch.metadata, batch.errors, batch.error_file_id], [metadata, null, null]);
  const output = (await (await client.files.content(batch.output_file_id)).text()).trim().split("\n").map(JSON.parse);
  assert.deepEqual(output.map((row) => row.custom_id), lines.map((line) => line.custom_id));
  for (const [number, row] of output.entries()) {
    const answer = await client.post("/rerank", { body: lines[number].body });
    sameRanking(row.response.body.results, answer.results);
  }
  const listed = [];
  for await (const each of client.batches.list({ limit: 1 })) listed.push(each.id);
  assert.ok(listed.includes(batch.id));
  const found = [];
  for await (const each of client.files.list({ purpose: "batch", limit: 1 })) found.push(each.id);
  assert.ok(found.includes(file.id));
  assert.equal(await (await client.files.content(file.id)).text(), content);
  assert.equal((await client.files.delete(file.id)).deleted, true);
  await assert.rejects(client.files.retrieve(file.id), OpenAI.NotFoundError);
  return `${output.length} rows equal the answers of /v1/rerank`;
}

// The client streams the file, without its length.
async function uploadFromDisk(client, content) {
  const folder = mkdtempSync(join(tmpdir(), "rerankq-"));
  try {
    const path = join(folder, "requests.jsonl");
    writeFileSync(path, content);
    return await client.files.create({ file: createReadStream(path), purpose: "batch" });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function ended(client, batch) {
  for (let polls = 0; polls < 300; polls++) {
    batch = await client.batches.retrieve(batch.id);
    if (["completed", "failed", "expired", "cancelled"].includes(batch.status)) return batch;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  throw new Error(`the batch did not end: ${JSON.stringify(batch)}`);
}

function sameRanking(rows, expected) {
  assert.deepEqual(rows.map((row) => row.index), expected.map((row) => row.index));
  const differences = rows.map((row, at) => Math.abs(row.relevance_score - expected[at].relevance_score));
  // vLLM's scores depend slightly on the other pairs in the same step.
  assert.ok(differences.every((each) => each < 1e-4), `scores differ by ${differences}`);
}

// Runs, polls, streams, cancels and purges jobs.
async function jobs(name, target) {
  const endpoint = made(name, target);
  const asked = { query: QUERY, documents: DOCUMENTS, top_n: TOP };
  const { id, status } = await endpoint.run({ input: asked, policy: { ttl: 60_000 } });
  assert.equal(status, "IN_QUEUE");
  const job = await endpoint.statusSync(id);
  assert.deepEqual([job.started, job.completed, job.succeeded, job.status], [true, true, true, "COMPLETED"]);
  assert.ok(Number.isInteger(job.delayTime) && Number.isInteger(job.executionTime));
  const told = ranked(job.output.results, underscored);
  assert.deepEqual((await endpoint.status(id)).output, job.output);
  const streamed = [];
  for await (const chunk of endpoint.stream(id)) streamed.push(chunk.output);
  assert.deepEqual(streamed, [job.output]);
  const waited = await endpoint.runSync({ input: { query: QUERY, docs: DOCUMENTS } });
  assert.ok(waited.succeeded && waited.id.startsWith("sync-"));
  assert.deepEqual(waited.output.results.map((row) => row.index), [0, 1, 2]);
  const canceled = await endpoint.run({ input: Array(50).fill(asked) });
  assert.ok(["CANCELLED", "COMPLETED"].includes((await endpoint.cancel(canceled.id)).status));
  const health = await endpoint.health();
  assert.ok(health.jobs.completed > 0 && health.workers.ready > 0, JSON.stringify(health));
  assert.equal((await endpoint.purgeQueue()).status, "completed");
  await assert.rejects(endpoint.run({ input: { query: QUERY } }), (error) => error.response.status === 400);
  return `run: ${told}; runSync, stream, cancel, health, purge`;
}

const COHERE = {
  401: "UnauthorizedError", 404: "NotFoundError", 429: "TooManyRequestsError", 503: "ServiceUnavailableError",
};
const STAINLESS = { 401: "AuthenticationError", 404: "NotFoundError", 429: "RateLimitError", 503: "InternalServerError" };
const AI = { 401: "APICallError", 404: "APICallError", 429: "APICallError", 503: "APICallError" };
const VOYAGE = { 401: "VoyageAIError", 404: "VoyageAIError", 429: "VoyageAIError", 503: "VoyageAIError" };
const XIOR = { 401: "XiorError", 404: "XiorError", 429: "XiorError", 503: "XiorError" };
const PINECONE = {
  401: "PineconeAuthorizationError", 404: "PineconeNotFoundError", 429: "PineconeUnmappedHttpError",
  503: "PineconeMaxRetriesExceededError",
};
const documents = { query: QUERY, documents: DOCUMENTS };

// `missing`: the path that causes a 404, for clients that cannot cause one with the name of a model.
// `mute`: the client's exceptions do not contain the service's message. `patient`: the client waits for Retry-After.
const CLIENTS = [
  {
    name: "cohere-ai, CohereClientV2", of: "cohere-ai", raises: COHERE, patient: true,
    call: async (name, it) =>
      ranked((await made(name, it).rerank({ model: it.model, ...documents, topN: TOP })).results, scored),
  },
  {
    name: "cohere-ai, CohereClient", of: "cohere-ai", raises: COHERE, patient: true,
    call: async (name, it) => {
      const asked = { model: it.model, ...documents, topN: TOP, returnDocuments: true };
      return ranked((await made(name, it).rerank(asked)).results, scored, withText);
    },
  },
  { name: "@langchain/cohere, CohereRerank", of: "@langchain/cohere", raises: COHERE, call: viaLangchain },
  { name: "ai with @ai-sdk/cohere", of: "@ai-sdk/cohere", raises: AI, patient: true, call: throughAi },
  { name: "ai with @ai-sdk/togetherai", of: "@ai-sdk/togetherai", raises: AI, patient: true, call: throughAi },
  { name: "ai with voyage-ai-provider", of: "voyage-ai-provider", raises: AI, patient: true, mute: true, call: throughAi },
  {
    name: "voyageai, VoyageAIClient", of: "voyageai", raises: VOYAGE, patient: true,
    call: async (name, it) => {
      const asked = { model: it.model, ...documents, topK: TOP, returnDocuments: true };
      return ranked((await made(name, it).rerank(asked)).data, scored, (row) => row.document);
    },
  },
  {
    name: "together-ai", of: "together-ai", raises: STAINLESS, patient: true,
    call: async (name, it) => {
      const asked = { model: it.model, ...documents, top_n: TOP, return_documents: true };
      return ranked((await made(name, it).rerank.create(asked)).results, underscored, withText);
    },
  },
  {
    name: "@mixedbread/sdk", of: "@mixedbread/sdk", raises: STAINLESS, patient: true,
    call: async (name, it) => {
      const asked = { model: it.model, query: QUERY, input: DOCUMENTS, top_k: TOP, return_input: true };
      return ranked((await made(name, it).rerank(asked)).data, (row) => row.score, (row) => row.input);
    },
  },
  {
    name: "@pinecone-database/pinecone", of: "@pinecone-database/pinecone", raises: PINECONE, mute: true,
    call: async (name, it) => {
      const asked = { model: it.model, ...documents, topN: TOP, returnDocuments: true };
      return ranked((await made(name, it).inference.rerank(asked)).data, (row) => row.score, withText);
    },
  },
  { name: "openai for JavaScript, models", of: "openai", raises: STAINLESS, patient: true, call: models },
  {
    name: "openai for JavaScript, files and batches", of: "openai", raises: STAINLESS, patient: true, call: batches,
    missing: { path: "/nowhere", says: "nowhere" },
  },
  { name: "runpod-sdk", of: "runpod-sdk", raises: XIOR, mute: true, call: jobs },
];

const TARGETS = { 401: "refused", 404: "real", 429: "limited", 503: "down" };

async function outcome(client, targets) {
  const checks = [await succeeds(client, targets.real)];
  for (const [status, kind] of Object.entries(client.raises)) {
    const target = { ...targets[TARGETS[status]] };
    if (status === "404") {
      if (client.missing) Object.assign(target, { url: target.url + client.missing.path, says: client.missing.says });
      else Object.assign(target, { model: "no-such-model", says: "no-such-model" });
    }
    checks.push(await fails(client, target, status, kind));
  }
  if (client.patient) {
    const once = { ...targets.real, url: `${targets.limited.url}/once/js-${CLIENTS.indexOf(client)}` };
    const began = performance.now();
    const check = await succeeds(client, once);
    const seconds = (performance.now() - began) / 1000;
    const hasty = seconds < 1 ? "it did not wait for the second that it was told" : "";
    checks.push(told(`429, then answered after ${seconds.toFixed(1)} s`, check.problem || hasty));
  }
  return { client: client.name, version: `${client.of} ${versionOf(client.of)}`, checks };
}

async function succeeds(client, target) {
  try {
    return told(await client.call(client.name, target));
  } catch (error) {
    return told("no answer", String(error?.stack ?? error).slice(0, 2000));
  }
}

async function fails(client, target, status, kind) {
  const shown = `${status} ${kind}`;
  try {
    return told(shown, `it was not raised; the answer: ${await client.call(client.name, target, true)}`);
  } catch (error) {
    // The build of xior, with which runpod-sdk sends requests, has no names of classes.
    const found = error instanceof XiorError ? "XiorError" : error?.constructor?.name;
    if (found !== kind && error?.name !== `AI_${kind}`) return told(`${status} ${found}`, `not ${kind}: ${error}`);
    const said = `${error.message} ${JSON.stringify(error.body ?? "")}`;
    return told(shown, client.mute || said.includes(target.says) ? "" : `${target.says} is not in what it says: ${said}`);
  }
}

function told(shown, problem = "") {
  return { shown, passed: !problem, problem };
}

function versionOf(distribution) {
  const { dependencies } = createRequire(import.meta.url)("./package.json");
  return dependencies[distribution];
}

const strangers = new Set();
const lookup = dns.lookup;
dns.lookup = (host, ...rest) => {
  if (["localhost", "127.0.0.1"].includes(host)) return lookup(host, ...rest);
  strangers.add(host);
  return rest.at(-1)(new Error(`${host} is not this machine`));
};
const given = JSON.parse(readFileSync(0));
const write = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const chosen = CLIENTS.filter((client) => `js ${client.name}`.includes(given.only));
await Promise.all(chosen.map(async (client) => write(await outcome(client, given.targets))));
const called = [...strangers].sort().join(", ");
write({ client: "all of js", version: "", checks: [told("nobody called home", called && `they called ${called}`)] });
