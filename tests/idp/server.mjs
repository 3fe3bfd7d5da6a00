// A real OpenID provider (oidc-provider) whose people and sign-ins a test scripts. One argument: a JSON object
//   {"port", "clients": […], "accounts": {"ada": {"groups": […], …}}, "acr": […]}
// People sign in at /interaction with the account's name and whatever `acr` and `amr` the form says; there are no passwords.
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const config = JSON.parse(process.argv[2]);
const issuer = `http://127.0.0.1:${config.port}`;
const accounts = config.accounts;
const escape = (text) => String(text).replace(/[&<>"']/g, (mark) => `&#${mark.charCodeAt(0)};`);

const provider = new Provider(issuer, {
  clients: config.clients,
  acrValues: config.acr,
  claims: {
    openid: ['sub', 'acr', 'amr', 'auth_time', 'sid'],
    profile: ['name', 'preferred_username', 'email'],
    groups: ['groups'],
  },
  scopes: ['openid', 'profile', 'groups'],
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  cookies: { keys: ['test'] },
  fetch: (url, { dispatcher, ...options }) => fetch(url, options), // its own dispatcher refuses loopback, where the exchange of a test is
  ttl: { DeviceCode: 600, IdToken: 600, Session: 86400, Interaction: 600, Grant: 86400 },
  features: {
    devInteractions: { enabled: false },
    deviceFlow: { enabled: true },
    backchannelLogout: { enabled: true },
    rpInitiatedLogout: { enabled: true },
    revocation: { enabled: true },
  },
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  async findAccount(ctx, id) {
    const account = accounts[id];
    return account && { accountId: id, claims: async () => ({ sub: id, preferred_username: id, ...account }) };
  },
  async loadExistingGrant(ctx) {
    const grant = new provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId });
    grant.addOIDCScope('openid profile groups');
    await grant.save();
    return grant;
  },
});

provider.on('backchannel.error', (ctx, error) => console.error('back-channel logout failed:', error));
provider.on('server_error', (ctx, error) => console.error(error));

const read = async (req) => {
  const parts = [];
  for await (const part of req) parts.push(part);
  return Buffer.concat(parts).toString();
};

const server = createServer(async (req, res) => {
  try {
    if (req.url === '/control/accounts' && req.method === 'POST') {
      Object.assign(accounts, JSON.parse(await read(req)));
      return res.writeHead(204).end();
    }
    if (!req.url.startsWith('/interaction/')) return provider.callback()(req, res);
    const details = await provider.interactionDetails(req, res);
    if (req.method === 'GET') {
      const wanted = escape((details.params.acr_values ?? '').split(' ')[0] ?? '');
      res.writeHead(200, { 'content-type': 'text/html; charset=utf-8' });
      return res.end(
        `<!doctype html><title>Sign in</title><h1>Sign in</h1><form method="post" action="${escape(req.url)}">`
        + `<label>Account <input name="account" id="account"></label><input name="acr" value="${wanted}"><input name="amr" value="pwd">`
        + '<button id="go">Sign in</button></form>',
      );
    }
    const form = new URLSearchParams(await read(req));
    const login = { accountId: form.get('account'), remember: form.get('remember') !== 'no' };
    if (form.get('acr')) login.acr = form.get('acr');
    if (form.get('amr')) login.amr = form.get('amr').split(' ');
    if (form.get('ts')) login.ts = Number(form.get('ts'));
    const result = form.get('deny') ? { error: 'access_denied' } : { login };
    return await provider.interactionFinished(req, res, result, { mergeWithLastSubmission: false });
  } catch (error) {
    console.error(error);
    return res.writeHead(500).end(String(error));
  }
});

server.listen(config.port, '127.0.0.1', () => console.log('ready'));
