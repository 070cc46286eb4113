// Server-sent events, read from the body of an answer as the HTML standard says.
import { inTime } from './transport.js';

/** A message of a stream: an event of the contract, `token` or `end`. A comment is a message without data. Each line of the data ends with \n. */
export interface Message {
  id?: string;
  event?: string;
  data?: string;
}

/** A stream is silent for longer than two of the server's comments, which come every 15 s: its connection is lost. */
const SILENCE = 40_000;
/** A message is not waited for once so many characters of it are there; the contract's have a few thousand. */
const LONGEST = 2 ** 20;

/**
 * The messages of a stream until it ends, is silent for too long, or `signal` aborts. A message that is cut off is left out. One that is too long is
 * the last, and its data is empty.
 */
export async function* messages(body: ReadableStream<Uint8Array>, signal?: AbortSignal): AsyncGenerator<Message, void, undefined> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  try {
    let message: Message = {};
    let size = 0;
    let rest = ''; // the beginning of a line; it is only appended to, so that no character is looked at twice
    for (let cr = false; ; ) {
      const { done, value } = await inTime(SILENCE, signal, () => reader.read());
      if (done) return;
      const text = decoder.decode(value, { stream: true });
      const lines = text.slice(cr && text[0] === '\n' ? 1 : 0).split(/\r\n?|\n/);
      if (text) cr = text.endsWith('\r');
      lines[0] = rest + lines[0];
      rest = lines.pop()!;
      for (const line of lines) {
        size += line.length;
        const [, name, content] = /^(id|event|data)(?:$|: ?)(.*)/s.exec(line) ?? [];
        if (name) message[name as keyof Message] = name === 'data' ? `${message.data ?? ''}${content}\n` : content!;
        if (line) continue;
        yield message;
        message = {};
        size = 0;
      }
      if (size + rest.length > LONGEST) return yield { data: '' };
    }
  } catch {
    // it is lost: it was reset, silent for too long, or aborted
  } finally {
    reader.cancel().catch(() => {});
  }
}
