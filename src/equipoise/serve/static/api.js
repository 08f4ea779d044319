// Calls of the JSON API. Errors are `Problem`s with one line for people.

export class Problem extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const KEY = "equipoise-token";
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  sessionStorage.setItem(KEY, given);
  history.replaceState(null, "", location.pathname); // no token in the address bar
}

export function setToken(token) {
  sessionStorage.setItem(KEY, token);
}

export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: headers() });
  } catch {
    throw new Problem(0, "The server can't be reached.");
  }
  return read(answer.status, await answer.text());
}

// Send a form; `told` hears the share that is sent. Resolves with the job. `signal` breaks it off.
export function send(form, told, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not tell how much of a body is sent
    request.open("POST", "api/clips");
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && told(event.loaded / event.total);
    request.onload = () => {
      try {
        resolve(read(request.status, request.responseText));
      } catch (problem) {
        reject(problem);
      }
    };
    request.onerror = () => reject(new Problem(0, "The upload broke off: the server refused it, or can't be reached."));
    request.onabort = () => reject(new Problem(0, ""));
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

function headers() {
  const token = sessionStorage.getItem(KEY);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

function read(status, text) {
  let content = {};
  try {
    content = text ? JSON.parse(text) : {};
  } catch {
    throw new Problem(status, "The server's answer can't be read.");
  }
  if (status >= 400) throw new Problem(status, content.error?.message ?? `The server answered ${status}.`);
  return content;
}
