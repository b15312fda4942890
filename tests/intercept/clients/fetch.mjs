const answer = await fetch(process.argv[2]);
console.log(answer.status, answer.headers.get("x-transformed"), await answer.text());
