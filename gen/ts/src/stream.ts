// Server-sent events, read from the body of an answer.
import { inTime } from './transport.js';

/** A message of a stream: an event of the contract, `token` or `end`. A comment is a message with nothing in it. */
export interface Message {
  id: string;
  event: string;
  data: string;
}

/** A stream is silent for longer than two of the server's comments, which come every 15 s: its connection is lost. */
const SILENCE = 40_000;

/** The messages of a stream until it ends, is silent for too long, or `signal` aborts. A message that is cut off is left out. */
export async function* messages(body: ReadableStream<Uint8Array>, signal?: AbortSignal): AsyncGenerator<Message, void, undefined> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  try {
    for (let text = ''; ; ) {
      const { done, value } = await inTime(SILENCE, signal, () => reader.read());
      if (done) return;
      const parts = (text + decoder.decode(value, { stream: true })).replaceAll('\r\n', '\n').split('\n\n');
      text = parts.pop()!;
      for (const part of parts) {
        const message = { id: '', event: '', data: '' };
        for (const line of part.split('\n')) {
          const [, name, content] = /^(id|event|data): ?(.*)$/.exec(line) ?? [];
          if (name) message[name as keyof Message] += content!;
        }
        yield message;
      }
    }
  } catch {
    // it is lost: it was reset, silent for too long, or aborted
  } finally {
    reader.cancel().catch(() => {});
  }
}
