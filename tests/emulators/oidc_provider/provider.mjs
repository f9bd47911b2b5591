// A certified OpenID Connect provider (npm: oidc-provider) with one client, for the tests of sign-in.
//
//   node provider.mjs PATH_OF_THE_PACKAGE < configuration.json
//
// The configuration: {port, jwks, algorithm, audience}. Prints one JSON line with its port when it listens. A token
// request of the client may carry `claims`, a JSON object: they stand in the access token beside, or in place of, the
// provider's own. GET /requests tells how often each path was asked for.
import { createServer } from "node:http";
import { text } from "node:stream/consumers";

const { default: Provider } = await import(process.argv[2]);
const { port, jwks, algorithm, audience } = JSON.parse(await text(process.stdin));

const requests = {};
let answer;
const server = createServer((request, response) => {
  if (request.url === "/requests") {
    response.end(JSON.stringify(requests));
    return;
  }
  requests[request.url] = (requests[request.url] ?? 0) + 1;
  answer(request, response);
});
await new Promise((resolve) => server.listen(port, "127.0.0.1", resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  jwks,
  clients: [
    {
      client_id: "tests",
      client_secret: "a secret of the tests",
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
      token_endpoint_auth_method: "client_secret_post",
      id_token_signed_response_alg: algorithm,
    },
  ],
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => audience,
      getResourceServerInfo: () => ({
        audience,
        scope: "",
        accessTokenTTL: 600,
        accessTokenFormat: "jwt",
        jwt: { sign: { alg: algorithm } },
      }),
    },
  },
  formats: {
    customizers: {
      jwt: (context, _token, parts) => {
        Object.assign(parts.payload, JSON.parse(context.oidc.body.claims ?? "{}"));
      },
    },
  },
});
answer = provider.callback();
console.log(JSON.stringify({ port: server.address().port }));
