// oidc-provider with one confidential client, on a free port of loopback.
//
//     node server.mjs READY < options.json
//
// The first line of standard input has {client_id, client_secret, scope}. READY is a file that appears, with
// {"issuer": …}, once requests are answered. PUT /control with {client_secret} or {lifetime} changes them. With
// {management: true} the client's registration can be managed (RFC 7592); then PUT /control also answers with
// {registration_client_uri, registration_access_token}, a new token each time, and with {rotates: true} an update of the
// registration changes the secret, by a policy such as the documentation of oidc-provider describes.
// The process ends when its standard input does, so it cannot outlive whoever started it.

import { randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { renameSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { Provider } from 'oidc-provider';

const ready = process.argv[2];
const input = createInterface({ input: process.stdin });
input.on('close', () => process.exit(0));
const options = JSON.parse(await new Promise((resolve) => input.once('line', resolve)));
const state = { lifetime: 3600, ...options };

// Clients come from here at each request, so a changed secret holds at once; everything else is kept in memory.
class Store {
  static kept = new Map();

  constructor(model) {
    this.model = model;
  }

  async find(id) {
    if (this.model !== 'Client') return Store.kept.get(`${this.model}:${id}`);
    if (id !== state.client_id) return undefined;
    return {
      client_id: state.client_id,
      client_secret: state.client_secret,
      scope: state.scope,
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
      token_endpoint_auth_method: 'client_secret_basic',
    };
  }

  async upsert(id, payload) {
    if (this.model === 'Client') {
      state.client_secret = payload.client_secret;
      return;
    }
    Store.kept.set(`${this.model}:${id}`, payload);
  }

  async destroy(id) {
    Store.kept.delete(`${this.model}:${id}`);
  }

  async consume() {}

  async findByUid() {}

  async findByUserCode() {}

  async revokeByGrantId() {}
}

const management = {
  registration: {
    enabled: true,
    initialAccessToken: true,
    policies: {
      rotates(ctx, properties) {
        if (ctx.method === 'PUT' && state.rotates) {
          Object.assign(properties, { client_secret: randomBytes(32).toString('base64url') });
        }
      },
    },
  },
  registrationManagement: { enabled: true, rotateRegistrationAccessToken: true },
};

let answer;
let registration;
const server = createServer((request, response) => {
  if (request.url !== '/control') {
    answer(request, response);
    return;
  }
  let body = '';
  request.on('data', (part) => { body += part; });
  request.on('end', async () => {
    Object.assign(state, JSON.parse(body));
    response.writeHead(200).end(JSON.stringify(state.management ? await registration() : {}));
  });
});

server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    adapter: Store,
    scopes: ['orders.read', 'orders.write'],
    ttl: { ClientCredentials: () => state.lifetime },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      introspection: { enabled: true },
      ...(state.management ? management : {}),
    },
  });
  answer = provider.callback();
  registration = async () => ({
    registration_client_uri: `${issuer}/reg/${state.client_id}`,
    registration_access_token: await new provider.RegistrationAccessToken({
      clientId: state.client_id,
      policies: ['rotates'],
    }).save(),
  });
  writeFileSync(`${ready}.new`, JSON.stringify({ issuer }), { mode: 0o600 });
  renameSync(`${ready}.new`, ready);
});
