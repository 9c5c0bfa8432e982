// An OpenID Connect provider on the loopback interface, for one command: it is started with what names the provider in
// its environment, and `{issuer}` in its arguments replaced; the provider ends with it. Run by scripts/real-oauth2.
//
//   node identity-provider.mjs NODE_MODULES CERTIFICATES COMMAND ARGUMENT...
//
// It has a second port for TLS, whose certificate, and the authority of the clients', are PEM files in CERTIFICATES. There
// the client `certified` needs no secret but its certificate (`tls_client_auth`).
// Tokens are JWTs signed with RS256, of the audience that `audience` (as Auth0 has it) or `resource` (RFC 8707) names.
// GET /token-requests says how many requests for a token there were, as JSON: {"app": 3}.
import { spawn } from 'node:child_process';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { pathToFileURL } from 'node:url';

const [modules, certificates, command, ...commandArguments] = process.argv.slice(2);
const { default: Provider, errors } = await import(pathToFileURL(`${modules}/oidc-provider/lib/index.js`));

// By client: seconds that its tokens are good for.
const lifetimes = { admin: 3600, app: 600, 'app-short': 3, certified: 600, nobody: 600 };
// The broker takes the first one.
const audiences = ['urn:pulsar:real', 'urn:pulsar:other'];
const scope = 'produce consume';
const secret = randomBytes(16).toString('base64');

const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const key = { ...privateKey.export({ format: 'jwk' }), kid: 'one', alg: 'RS256', use: 'sig' };

const file = (name) => readFileSync(`${certificates}/${name}.pem`);
const listen = async (server) => {
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    return server.address().port;
};
const server = createServer();
const issuer = `http://127.0.0.1:${await listen(server)}`;
const tls = { ca: file('ca'), cert: file('server'), key: file('server-key'), requestCert: true, rejectUnauthorized: false };
const tlsServer = createTlsServer(tls);
const tlsIssuer = `https://127.0.0.1:${await listen(tlsServer)}`;

const provider = new Provider(issuer, {
    clients: Object.keys(lifetimes).map((client_id) => ({
        client_id,
        ...(client_id === 'certified'
            ? { tls_client_auth_subject_dn: 'CN=client', token_endpoint_auth_method: 'tls_client_auth' }
            : { client_secret: secret, token_endpoint_auth_method: 'client_secret_post' }),
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
        scope,
    })),
    clientAuthMethods: ['client_secret_post', 'tls_client_auth'],
    cookies: { keys: [secret] },
    features: {
        clientCredentials: { enabled: true },
        devInteractions: { enabled: false },
        mTLS: {
            enabled: true,
            tlsClientAuth: true,
            certificateAuthorized: (context) => context.socket.authorized,
            certificateSubjectMatches: (context, _, expected) =>
                `CN=${context.socket.getPeerCertificate().subject.CN}` === expected,
            getCertificate: (context) => {
                const certificate = context.socket.getPeerX509Certificate?.();
                return certificate?.toString();
            },
        },
        resourceIndicators: {
            enabled: true,
            defaultResource: (context) => context.oidc.body?.audience,
            getResourceServerInfo: (_, audience) => {
                if (!audiences.includes(audience)) throw new errors.InvalidTarget();
                return {
                    accessTokenFormat: 'jwt',
                    audience,
                    jwt: { sign: { alg: 'RS256', kid: 'one' } },
                    scope,
                };
            },
        },
    },
    formats: {
        customizers: {
            // The broker wants the claim, which is optional.
            jwt: (_, token, jwt) => { jwt.payload.nbf = jwt.payload.iat; },
        },
    },
    jwks: { keys: [key] },
    scopes: scope.split(' '),
    ttl: { ClientCredentials: (_, token, client) => lifetimes[client.clientId] },
});

const requests = {};
provider.use(async (context, next) => {
    if (context.path === '/token-requests') {
        context.body = requests;
        return;
    }
    await next();
    if (context.path === '/token' && context.method === 'POST') {
        const client = context.oidc?.body?.client_id ?? 'unknown';
        requests[client] = (requests[client] ?? 0) + 1;
    }
});
server.on('request', provider.callback());
tlsServer.on('request', provider.callback());

// What the broker and its administrator show.
const form = { grant_type: 'client_credentials', client_id: 'admin', client_secret: secret, audience: audiences[0], scope };
const answer = await fetch(`${issuer}/token`, { method: 'POST', body: new URLSearchParams(form) });
const { access_token: adminToken } = await answer.json();

const child = spawn(command, commandArguments.map((text) => text.replaceAll('{issuer}', issuer)), {
    env: {
        ...process.env,
        PULSAR_ADMIN_TOKEN: adminToken,
        PULSAR_OAUTH2_ISSUER: issuer,
        PULSAR_OAUTH2_TLS_ISSUER: tlsIssuer,
        PULSAR_OAUTH2_CERTIFICATES: certificates,
        PULSAR_OAUTH2_SECRET: secret,
        PULSAR_OAUTH2_AUDIENCE: audiences[0],
        PULSAR_OAUTH2_OTHER_AUDIENCE: audiences[1],
    },
    stdio: 'inherit',
});
// A Ctrl-C reaches the child by itself; the provider stays until it has ended.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => child.kill('SIGTERM'));
child.on('error', (error) => {
    console.error(`identity-provider: ${command}: ${error.message}`);
    process.exit(127);
});
child.on('exit', (code, signal) => process.exit(code ?? (signal === 'SIGINT' ? 130 : 143)));
