import { signed } from './sigv4.js';

const field = (id) => document.getElementById(id).value.trim();

document.getElementById('caller').addEventListener('submit', (event) => event.preventDefault());

SwaggerUIBundle({
  url: 'openapi.json',
  domNode: document.getElementById('api'),
  deepLinking: true,
  docExpansion: 'list',
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  syntaxHighlight: { theme: 'idea' },
  tryItOutEnabled: true,
  supportedSubmitMethods: ['get', 'post'],
  validatorUrl: null, // nothing leaves this machine
  requestInterceptor: async (request) => {
    const accessKeyId = field('access-key-id');
    if (new URL(request.url, location.href).pathname.startsWith('/docs/') || !accessKeyId) return request;
    const url = new URL(request.url, location.href);
    const headers = await signed({
      method: request.method ?? 'GET',
      url,
      body: request.body ?? '',
      accessKeyId,
      secretAccessKey: field('secret-access-key'),
      region: field('region'),
      now: new Date(),
    });
    Object.assign(request.headers, headers);
    return request;
  },
});
