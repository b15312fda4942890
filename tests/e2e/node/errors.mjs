// What the official clients raise: for a key that is not known, and where a stream is cut.
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const { URL: url, API_KEY: apiKey } = process.env;
const messages = [{ role: "user", content: "Hi" }];
const seen = {};

async function raised(call, kind) {
  try {
    await call();
  } catch (error) {
    if (!(error instanceof kind)) throw error;
    return error;
  }
  throw new Error("nothing was raised");
}

const openai = (key) => new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
const anthropic = (key) => new Anthropic({ baseURL: url, authToken: key, apiKey: null, maxRetries: 0 });

const denied = await raised(
  () => openai("wrong").chat.completions.create({ model: "m", messages }),
  OpenAI.AuthenticationError,
);
seen.openai = denied.code;
const refused = await raised(
  () => anthropic("wrong").messages.create({ model: "m", messages, max_tokens: 9 }),
  Anthropic.AuthenticationError,
);
seen.anthropic = refused.error.error.type;
const cut = await raised(async () => {
  const stream = await openai(apiKey).chat.completions.create({ model: "m", messages, stream: true });
  for await (const _ of stream);
}, OpenAI.APIError);
seen.cut = cut.code;
console.log(JSON.stringify(seen));
