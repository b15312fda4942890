// One whole and one streamed chat through the official SDK, and one call that is refused.
import OpenAI from "openai";

const messages = [{ role: "user", content: "Hello!" }];
const client = new OpenAI({
  baseURL: process.env.BASE_URL,
  apiKey: process.env.API_KEY,
  maxRetries: 0,
});

const whole = await client.chat.completions.create({ model: "demo", messages });
let streamed = "";
const stream = await client.chat.completions.create({ model: "demo", messages, stream: true });
for await (const chunk of stream) streamed += chunk.choices[0]?.delta?.content ?? "";

let denied = null;
try {
  const stranger = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "tg_wrong", maxRetries: 0 });
  await stranger.chat.completions.create({ model: "demo", messages });
} catch (error) {
  if (!(error instanceof OpenAI.AuthenticationError)) throw error;
  denied = { status: error.status, code: error.code };
}
console.log(JSON.stringify({ whole: whole.choices[0].message.content, streamed, denied }));
