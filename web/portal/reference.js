// Draws the contract of this installation, with its key filled in.
(async () => {
  const [contract, { api_key: token }] = await Promise.all([fetch('/openapi.json').then((response) => response.json()), window.portal.config]);
  const [about] = contract.info.description.split(/\n\s*\n/);
  contract.info.description = `${about}\n\nThe [guides](/docs) say how to work with it.`; // they have pages of their own
  // What is sent is what the reader must say: a key of a change, and no optional header, whose example would be sent along.
  const random = [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  for (const [name, parameter] of Object.entries(contract.components.parameters)) {
    if (name === 'IdempotencyKey') parameter.example = `try-${random}`;
    else if (parameter.in === 'header' && !parameter.required && name !== 'Prefer') {
      delete parameter.example;
      delete parameter.examples;
    }
  }
  window.Scalar.createApiReference('#reference', {
    content: contract,
    authentication: { preferredSecurityScheme: 'bearer', securitySchemes: { bearer: { token } } },
    darkMode: window.portal.dark(), hideDarkModeToggle: true, theme: 'none', withDefaultFonts: false,
    defaultHttpClient: { targetKey: 'shell', clientKey: 'curl' }, documentDownloadType: 'none', hideClientButton: true, hideSearch: true, persistAuth: false,
    agent: { disabled: true }, mcp: { disabled: true }, proxyUrl: '', showDeveloperTools: 'never', telemetry: false,
  });
  document.addEventListener('theme', ({ detail }) => {
    document.body.classList.toggle('dark-mode', detail.dark);
    document.body.classList.toggle('light-mode', !detail.dark);
  });
})();
