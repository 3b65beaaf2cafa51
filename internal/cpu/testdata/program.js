// Works in functions of JavaScript, for ever.
"use strict";

function spin() {
	let total = 0;
	for (let number = 0; number < 1_000_000; number++)
		total = (total * 31 + number) % 1_000_003;
	return total;
}

function recurse(depth) {
	if (depth > 1)
		return recurse(depth - 1) + 1;
	let total = 0;
	for (let round = 0; round < 20; round++)
		total += spin();
	return total;
}

console.log("ready");
setInterval(() => recurse(Number(process.argv[2])), 1);
