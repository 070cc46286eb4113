// Lints the bundled contract, which make gen writes, and the payment provider's: Redocly's recommended rules, a warning is an error.
import { createConfig, formatProblems, getTotals, lint } from '@redocly/openapi-core';

const config = await createConfig({
  extends: ['recommended-strict'],
  rules: { 'operation-4xx-response': 'off' }, // the payment provider's getLive has none; internal/bundle adds ours
});
let failed = false;
for (const ref of ['../../gen/api/openapi.yaml', '../../openapi/psp.yaml']) {
  const problems = await lint({ ref, config });
  formatProblems(problems, { totals: getTotals(problems), format: 'stylish', maxProblems: 100 });
  failed ||= problems.length > 0;
}
process.exitCode = failed ? 1 : 0;
