import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vite';
import { licenses } from './licenses.js';

// The gateway that `npm run dev` shows the console of; it must be one of `ordergate run`.
const gateway = process.env.ORDERGATE_URL ?? 'http://127.0.0.1:8080';

export default defineConfig({
  base: '/console/',
  publicDir: '../shared/public',
  plugins: [licenses()],
  resolve: { alias: { '@ordergate/client': fileURLToPath(new URL('../../gen/ts/src/index.ts', import.meta.url)) } },
  server: { proxy: { '/v1': gateway, '/docs': gateway, '/console/config.json': gateway } },
  build: {
    target: 'es2023',
    modulePreload: { polyfill: false }, // it is an inline script
    assetsInlineLimit: 0,
    // Names without a hash: the pages are asked about again by their ETag, and a change of the sources changes no names in gen/.
    rollupOptions: { output: { entryFileNames: 'app.js', chunkFileNames: '[name].js', assetFileNames: 'app[extname]' } },
  },
});
