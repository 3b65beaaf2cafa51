// Computes in a few functions, and says how often it has and what processor time it has used.
function inner(rounds) {
	let total = 0;
	for (let i = 0; i < rounds; i++) total += Math.sqrt(i) * (total % 7);
	return total;
}

function outer(depth) {
	return depth ? outer(depth - 1) + 1 : inner(20000);
}

let units = 0;
let told = 0;
function turn() {
	for (let i = 0; i < 20; i++) outer(10);
	JSON.stringify(Array.from({ length: 200 }, (_, i) => ({ i })));
	units++;
	if (performance.now() - told >= 50) {
		told = performance.now();
		const used = process.cpuUsage();
		process.stdout.write(`${units} ${(used.user + used.system) * 1000}\n`);
	}
	setImmediate(turn);
}
turn();
