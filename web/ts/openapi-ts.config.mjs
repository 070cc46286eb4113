// hey-api makes this of the contract: types, one function per operation, and the fetch client that they call.
export default {
  input: '../../gen/api/codegen.json',
  output: { path: '../../gen/ts/src/api', entryFile: false, module: { extension: '.js' } },
  logs: { file: false },
  plugins: [
    '@hey-api/client-fetch',
    '@hey-api/typescript',
    { name: '@hey-api/sdk', validator: false }, // a validator breaks every call with a header parameter
  ],
};
