// Spectral's rules for the bundled contract: all that it has for OpenAPI. A rule that is off has its reason here.
import rulesets from '@stoplight/spectral-rulesets';

export default {
  extends: [[rulesets.oas, 'all']],
  rules: {
    // It takes a list behind `bearer` for OAuth scopes that must be declared. Since 3.1 any scheme may have such a list of roles, which
    // internal/bundle compares with x-scopes.
    'oas3-operation-security-defined': 'off',
    // Whom to ask is known to whoever runs an installation, not to the contract.
    'contact-properties': 'off',
    // 3.1 has license.identifier, which stands instead of a url; both together are forbidden.
    'license-url': 'off',
    // The tags are in the order in which a reader meets them.
    'openapi-tags-alphabetical': 'off',
  },
};
