// Actions, and the token that they need. It is in a variable alone: in no storage, in no address.

let token = null;
let asked = null;

const ACTIONS = {
  restart: {
    text: "Its present life ends and the next one begins. What it has in hand and what waits stays.",
    body: (row) => ({ name: row.child.name }),
  },
  resume: {
    text: "It gets a new life and a full restart budget; an isolated breaker is closed.",
    body: (row) => ({ name: row.child.name }),
  },
  isolate: { text: "Its breaker is held open, and refuses every request, until it is resumed.", body: (row) => ({ name: row.child.name }) },
  replay: { text: "The request is tried again. If it is answered, the dead letter is gone.", body: ({ letter }) => ({ letter }) },
  drop: { text: "The dead letter and its input are forgotten.", body: ({ letter }) => ({ letter }) },
};

function ask(action, subject) {
  const name = subject.child ? subject.child.name : `dead letter ${subject.letter} of ${subject.kernel}`;
  const verb = action[0].toUpperCase() + action.slice(1);
  asked = { action, body: { action, ...ACTIONS[action].body(subject) } };
  write($("ask-title"), `${verb} ${name}?`);
  write($("ask-text"), ACTIONS[action].text);
  write($("ask-yes"), verb);
  $("ask-token").hidden = token !== null;
  $("token").value = "";
  $("ask").showModal();
  (token === null ? $("token") : $("ask-yes")).focus();
}

async function act() {
  const { body } = asked;
  const sent = token || $("token").value.trim();
  $("token").value = "";
  $("ask").close();
  // A header takes nothing else, and no token has anything else.
  if (!/^[\x21-\x7e]+$/.test(sent)) return say("An action needs a token: printable characters without spaces.", "bad");
  say("...", "quiet");
  try {
    const headers = { "content-type": "application/json", authorization: `Bearer ${sent}` };
    const answer = await fetch("v1/actions", { method: "POST", headers, body: JSON.stringify(body), credentials: "omit" });
    const { done, message } = await answer.json();
    // Right or wrong, what is not refused for its token had the right one.
    if (answer.status === 401) token = null;
    else if (answer.status !== 403 && answer.status !== 429) token = sent;
    say(message, done ? "good" : "bad");
  } catch (error) {
    say(`The node did not answer: ${error.message}`, "bad");
  }
}

function say(text, tone) {
  write($("said"), text, { tone });
}
