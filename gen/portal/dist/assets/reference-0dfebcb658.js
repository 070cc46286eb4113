// Draws the contract of this installation, with its key filled in.
(async () => {
  const [contract, { api_key: token }] = await Promise.all([fetch('/openapi.json').then((response) => response.json()), window.portal.config]);
  const [about] = contract.info.description.split(/\n\s*\n/);
  contract.info.description = `${about}\n\nThe [guides](/docs) say how to work with it.`; // they have pages of their own
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
