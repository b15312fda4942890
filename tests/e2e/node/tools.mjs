// A streamed chat that calls a tool, through the official SDKs: all that they make of the events.
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const { BASE_URL, API_KEY, ANTHROPIC } = process.env;
const content = "What is the weather in Paris?";
const description = "The weather of a city.";
const schema = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
};
const seen = { openai: [], anthropic: [], raw: [] };

// What an SDK sends, and the bytes that it gets.
async function fetched(url, init) {
  const answer = await fetch(url, init);
  const copy = answer.clone();
  seen.raw.push({ sent: init.body, path: new URL(url).pathname, got: copy.arrayBuffer() });
  return answer;
}
const options = { apiKey: API_KEY, maxRetries: 0, fetch: fetched };

const openai = new OpenAI({ baseURL: `${BASE_URL}/v1`, ...options });
const chat = await openai.chat.completions.create({
  model: "smollm2",
  messages: [{ role: "user", content }],
  tools: [{ type: "function", function: { name: "get_weather", description, parameters: schema } }],
  tool_choice: "required",
  stream: true,
  temperature: 0,
  seed: 7,
  max_tokens: 80,
});
for await (const chunk of chat) seen.openai.push(chunk);

if (ANTHROPIC) {
  const anthropic = new Anthropic({ baseURL: BASE_URL, ...options });
  const events = await anthropic.messages.create({
    model: "smollm2",
    messages: [{ role: "user", content }],
    tools: [{ name: "get_weather", description, input_schema: schema }],
    stream: true,
    temperature: 0,
    max_tokens: 80,
  });
  for await (const event of events) seen.anthropic.push(event);
}
for (const one of seen.raw) one.got = Buffer.from(await one.got).toString("base64");
console.log(JSON.stringify(seen));
