// The messages of a stream, and what a test awaits.
import assert from 'node:assert/strict';

/** The error that the promise is rejected with. */
export async function thrown(promise) {
  const value = await promise.then((answer) => assert.fail(`answered ${JSON.stringify(answer)}`), (error) => error);
  if (value instanceof assert.AssertionError) throw value;
  return value;
}

/** A stream of server-sent events as the server sends it. */
export const stream = (...messages) => ({ headers: { 'Content-Type': 'text/event-stream' }, body: `:\n\n${messages.join('')}` });
export const event = (sequence, type = 'order.updated') => `id: ${sequence}\nevent: ${type}\ndata: ${JSON.stringify({ id: `evt_${sequence}`, type, sequence, data: {} })}\n\n`;
export const end = (reason) => `event: end\ndata: {"reason":"${reason}"}\n\n`;
