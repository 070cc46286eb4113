// Draws the contract of this installation, with its key filled in.
(async () => {
  const [response, { api_key: token }] = await Promise.all([fetch('/openapi.json'), window.portal.config]);
  if (!response.ok) throw new Error(`/openapi.json is ${response.status}`);
  const contract = await response.json();
  const [about] = contract.info.description.split(/\n\s*\n/);
  contract.info.description = `${about}\n\nThe [guides](/docs) say how to work with it.`; // they have pages of their own
  // A request sends what its reader must give: a key of a change, and no optional header, whose example would be sent along.
  const newKey = () => `try-${[...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, '0')).join('')}`;
  const shownKey = newKey();
  let nextKey = shownKey;
  for (const [name, parameter] of Object.entries(contract.components.parameters)) {
    if (name === 'IdempotencyKey') parameter.example = shownKey;
    else if (parameter.in === 'header' && !parameter.required && name !== 'Prefer') {
      delete parameter.example;
      delete parameter.examples;
    }
  }
  window.Scalar.createApiReference('#reference', {
    content: contract,
    // Each request is a change of its own: the shown key goes with the first, new ones with the others. A key that the reader wrote stays.
    onRequestBuilt: ({ request }) => {
      if (request.headers.get('Idempotency-Key') !== shownKey) return;
      request.headers.set('Idempotency-Key', nextKey);
      nextKey = newKey();
    },
    authentication: { preferredSecurityScheme: 'bearer', securitySchemes: { bearer: { token } } },
    darkMode: window.portal.dark(), hideDarkModeToggle: true, theme: 'none', withDefaultFonts: false,
    defaultHttpClient: { targetKey: 'shell', clientKey: 'curl' }, documentDownloadType: 'none', hideClientButton: true, hideSearch: true, persistAuth: false,
    agent: { disabled: true }, mcp: { disabled: true }, proxyUrl: '', showDeveloperTools: 'never', telemetry: false,
  });
  document.addEventListener('theme', ({ detail }) => {
    document.body.classList.toggle('dark-mode', detail.dark);
    document.body.classList.toggle('light-mode', !detail.dark);
  });
})().catch((error) => {
  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  document.querySelector('#reference').replaceChildren(make('main', { className: 'failed' }, make('h1', { textContent: 'Reference' }),
    make('p', { role: 'alert', textContent: `The contract cannot be loaded (${error.message}). Reload the page to try again.` })));
});
