// Takes the pictures of the README, into docs/images.
import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { crc32, deflateSync, inflateSync } from 'node:zlib';
import { startBrowser, startGateway } from './gateway.mjs';

const folder = fileURLToPath(new URL('../../../docs/images/', import.meta.url));
const largest = 200_000; // bytes of a picture

const pictures = {
  'console-light': {
    options: { viewport: { width: 1280, height: 840 }, colorScheme: 'light' },
    async show(page) {
      await page.click('[data-outcome=decline]');
      await page.waitForSelector('.undo[data-status=done]');
      await page.waitForSelector('.states .differs');
    },
  },
  'console-dark': {
    options: { viewport: { width: 1280, height: 840 }, colorScheme: 'dark' },
    async show(page) {
      await page.click('[data-outcome=approve]');
      await page.waitForSelector('.head[data-status=confirmed]');
      await page.click('[data-action=cancel] button[aria-disabled=false]');
      await page.waitForSelector('.head[data-status=cancelled]');
      await page.click('#tab-Requests');
    },
  },
  'console-phone': {
    options: { viewport: { width: 390, height: 844 }, deviceScaleFactor: 1.5, colorScheme: 'light' },
    async show(page) {
      await page.click('[data-outcome=approve]');
      await page.waitForSelector('.head[data-status=confirmed]');
      await page.waitForSelector('[data-action=refund] input');
    },
  },
};

/** The same PNG in fewer bytes: the filters that suit photographs are left out, and it is compressed as well as zlib can. */
function smaller(png) {
  const chunks = [];
  for (let at = 8; at < png.length; at += 12 + png.readUInt32BE(at)) {
    chunks.push([png.toString('latin1', at + 4, at + 8), png.subarray(at + 8, at + 8 + png.readUInt32BE(at))]);
  }
  const header = chunks[0][1];
  const size = header[9] === 2 ? 3 : 4; // bytes of a pixel
  const width = header.readUInt32BE(0) * size;
  const rows = inflateSync(Buffer.concat(chunks.filter(([type]) => type === 'IDAT').map(([, data]) => data)));
  let above = Buffer.alloc(width);
  for (let at = 0; at < rows.length; at += width + 1) {
    const row = rows.subarray(at + 1, at + 1 + width);
    for (let i = 0; i < width; i++) {
      const [left, up, corner] = [row[i - size] ?? 0, above[i], above[i - size] ?? 0];
      const paeth = () => {
        const [l, u, c] = [left, up, corner].map((n) => Math.abs(left + up - corner - n));
        return l <= u && l <= c ? left : u <= c ? up : corner;
      };
      row[i] += [() => 0, () => left, () => up, () => (left + up) >> 1, paeth][rows[at]]();
    }
    rows[at] = 0;
    above = row;
  }
  return Buffer.concat([png.subarray(0, 8), ...[chunks[0], ['IDAT', deflateSync(rows, { level: 9 })], ['IEND', Buffer.alloc(0)]].flatMap(([type, data]) => {
    const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
    const numbers = Buffer.alloc(8);
    numbers.writeUInt32BE(data.length);
    numbers.writeUInt32BE(crc32(body), 4);
    return [numbers.subarray(0, 4), body, numbers.subarray(4)];
  })]);
}

let gateway;
const browser = await startBrowser();
try {
  gateway = await startGateway();
  mkdirSync(folder, { recursive: true });
  for (const [name, { options, show }] of Object.entries(pictures)) {
    const page = await browser.newPage(options);
    await page.goto(`${gateway.url}/console`);
    await page.waitForSelector('.catalogue [data-sku]');
    await page.fill('.search', 'lamp');
    await page.waitForSelector('.catalogue [data-sku=LAMP-0001]');
    await page.click('.basket [aria-label$=" less"]');
    for (const sku of ['LAMP-0001', 'LAMP-0001', 'LAMP-0003']) await page.click(`[data-sku=${sku}] button`);
    await show(page);
    await page.mouse.move(0, 0);
    await page.evaluate(() => document.activeElement?.blur());
    await page.waitForTimeout(1200); // what has just changed is no longer marked
    const picture = smaller(await page.screenshot());
    console.log(`docs/images/${name}.png ${Math.round(picture.length / 1000)} kB`);
    if (picture.length > largest) throw new Error(`${name} has more than ${largest} bytes`);
    writeFileSync(`${folder}${name}.png`, picture);
    await page.close();
  }
} finally {
  await browser.close();
  await gateway?.stop();
}
