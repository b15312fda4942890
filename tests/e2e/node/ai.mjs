// The Vercel AI SDK: text, a stream, and a tool that it calls by itself, through both vendors' APIs.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { APICallError, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";

globalThis.AI_SDK_LOG_WARNINGS = false;
const { BASE_URL, API_KEY, MODELS } = process.env;
const openai = createOpenAI({ baseURL: `${BASE_URL}/v1`, apiKey: API_KEY });
const anthropic = createAnthropic({ baseURL: `${BASE_URL}/v1`, apiKey: API_KEY });
const tools = {
  get_weather: tool({
    description: "The weather of a city.",
    inputSchema: jsonSchema({
      type: "object",
      properties: { city: { type: "string" } },
      required: ["city"],
    }),
    execute: async ({ city }) => `sunny in ${city}`,
  }),
};
const seen = [];
for (const name of MODELS.split(",")) {
  for (const [api, model] of [
    ["chat", openai.chat(name)],
    ["responses", openai.responses(name)],
    ["messages", anthropic(name)],
  ]) {
    const asked = { model, tools, prompt: "The weather in Paris?", maxRetries: 0 };
    const whole = await generateText({ ...asked, stopWhen: stepCountIs(3) });
    const stream = streamText({ ...asked, stopWhen: stepCountIs(3) });
    let text = "";
    for await (const piece of stream.textStream) text += piece;
    const calls = (await stream.steps).flatMap((step) => step.toolCalls.map((call) => call.input));
    const usage = await stream.totalUsage;
    seen.push({
      api, name, whole: whole.text, steps: whole.steps.length, text, calls,
      finish: await stream.finishReason, input: usage.inputTokens, output: usage.outputTokens,
    });
  }
}
let error = null;
try {
  await generateText({ model: openai.chat("none/such"), prompt: "Hi", maxRetries: 0 });
} catch (raised) {
  error = { call: APICallError.isInstance(raised), status: raised.statusCode, says: raised.message };
}
console.log(JSON.stringify({ seen, error }));
