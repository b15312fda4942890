// An OpenID Connect issuer that nobody here wrote: `node issuer.mjs PORT KEYS.json`.
// The file holds private keys (RFC 7517): the first one signs.
import { readFileSync } from 'node:fs';
import { Provider } from 'oidc-provider';

const [port, file] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const keys = JSON.parse(readFileSync(file, 'utf8'));

const provider = new Provider(issuer, {
  jwks: keys,
  clients: [
    {
      client_id: 'batch',
      client_secret: 'a-secret-of-a-test',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
      id_token_signed_response_alg: keys.keys[0].alg,
    },
  ],
  extraTokenClaims: () => ({ team: 'ml', roles: ['dev'] }),
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, audience) => ({
        scope: 'read',
        audience,
        accessTokenFormat: 'jwt',
        accessTokenTTL: 600,
        jwt: { sign: { alg: keys.keys[0].alg } },
      }),
    },
  },
});
const server = provider.listen(Number(port), '127.0.0.1', () => {
  console.log('ready');
});
process.on('SIGTERM', () => server.close(() => process.exit(0)));
