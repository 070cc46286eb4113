// Server-sent events, read from the body of an answer.

/** A message of a stream: an event of the contract, or `end`. */
export interface Message {
  id: string;
  event: string;
  data: string;
}

/** A stream is silent for longer than two of the server's comments, which come every 15 s: its connection is lost. */
const SILENCE = 40_000;

/** The messages of a stream until it ends, is silent for too long, or `signal` aborts, which is thrown. */
export async function* messages(body: ReadableStream<Uint8Array>, signal?: AbortSignal): AsyncGenerator<Message, void, undefined> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const abort = () => void reader.cancel().catch(() => {});
  signal?.addEventListener('abort', abort, { once: true });
  try {
    for (let text = ''; ; ) {
      const { done, value } = await inTime(reader);
      signal?.throwIfAborted();
      if (done) return;
      const parts = (text + decoder.decode(value, { stream: true })).split('\n\n');
      text = parts.pop()!;
      for (const part of parts) {
        const message = { id: '', event: '', data: '' };
        for (const line of part.split('\n')) {
          const [, name, content] = /^(id|event|data): ?(.*)$/.exec(line) ?? [];
          if (name) message[name as keyof Message] = content!;
        }
        if (message.event) yield message;
      }
    }
  } finally {
    signal?.removeEventListener('abort', abort);
    abort();
  }
}

async function inTime(reader: ReadableStreamDefaultReader<Uint8Array>) {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const silence = new Promise<{ done: true; value: undefined }>((resolve) => {
    timer = setTimeout(() => resolve({ done: true, value: undefined }), SILENCE);
  });
  try {
    return await Promise.race([reader.read().catch(() => ({ done: true as const, value: undefined })), silence]);
  } finally {
    clearTimeout(timer);
  }
}
