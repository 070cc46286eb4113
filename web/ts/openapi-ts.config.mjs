// hey-api makes the types of the contract. Its functions and its fetch client are not used: they take `{}` for an answer without a body, and
// weigh more than all of the client.
export default {
  input: '../../gen/api/codegen.json',
  output: { path: '../../gen/ts/src/api', entryFile: false, module: { extension: '.js' } },
  logs: { file: false },
  plugins: ['@hey-api/typescript'],
};
