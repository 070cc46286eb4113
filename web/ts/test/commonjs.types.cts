// Compiled, never run: the types of the CommonJS build.
import ordergate = require('@ordergate/client');

const order: Promise<ordergate.Order> = ordergate.createOrdergate({ baseUrl: '', apiKey: '' }).orders.get('ord_');
export = order;
